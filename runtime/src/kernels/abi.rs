//! The structures that cross the border between JITed code and the kernels.

use std::ops::Range;
use std::ptr::{null, null_mut};

use super::half::Half;
use super::period::Period;
use super::simd::Real;
use super::spec::Element;

/// Lanes of one group: the unit in which gather tables describe consecutive indices.
pub(crate) const GROUP: usize = 16;

/// A run of lanes inside one group whose elements are `step` apart in memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where lane 0 of the group would be if the run began there.
    pub(crate) offset: i32,
    /// Lanes of the run.
    pub(crate) mask: u16,
    pub(crate) first: u8,
    pub(crate) len: u8,
    /// 1 or 2; always 1 for outputs and for runs of one lane.
    pub(crate) step: u32,
}

impl Segment {
    /// Offset of the run's first element.
    #[inline(always)]
    pub(crate) fn start(&self) -> isize {
        self.offset as isize + self.first as isize * self.step as isize
    }
}

/// How to read element `(i, k)` of an operand, `i` being its free index (m or n).
///
/// The element is at `batch[g] + free[i] + step[k]`. Vectors run along one of the two indices, the *lane* axis, in
/// groups of [`GROUP`]; the other is the *step* axis. Along lanes, `segments` says which are contiguous; `masks` says
/// which lie inside the tensor for each class of step indices (steps with equal spatial coordinates share a class).
/// All tables have one period of their index.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Operand {
    pub(crate) batch: *const i64,
    pub(crate) free: *const i32,
    pub(crate) k: *const i32,
    /// Length of the free index.
    pub(crate) free_len: usize,
    /// Length of `k`, in terms of the sum.
    pub(crate) k_len: usize,
    /// What lies in memory.
    pub(crate) element: Element,
    /// Whether elements are what panels hold; else they are converted, several terms to a unit.
    pub(crate) native: bool,
    pub(crate) free_period: Period,
    pub(crate) k_period: Period,
    /// Whether lanes run along k (packing transposes) or along the free index (packing copies).
    pub(crate) lanes_along_k: bool,
    pub(crate) checked: bool,
    /// The caller passes panels written by `pack_operand` instead of the tensor.
    pub(crate) packed: bool,
    /// Free indices in one panel.
    pub(crate) width: usize,
    pub(crate) groups_per_panel: usize,
    pub(crate) group_start: *const u32,
    pub(crate) segments: *const Segment,
    pub(crate) class: *const u32,
    pub(crate) masks: *const u16,
    pub(crate) mask_stride: usize,
    pub(crate) classes: usize,
    /// Which packed copy batch `g` uses (batches that read the same elements share one).
    pub(crate) packed_batch: *const u32,
}

/// What happens to a finished sum before it is stored; fields are the codes of `contract.rs`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct EpilogueCode {
    /// 0 none, 1 by m, 2 by n.
    pub(crate) bias: u32,
    pub(crate) scale: u32,
    pub(crate) residual: u32,
    pub(crate) activation: u32,
    /// Slope, or bounds.
    pub(crate) alpha: [f64; 2],
}

/// A compiled contraction. Opaque to callers, who hold a pointer to it; see [`super::ContractPlan`].
#[repr(C)]
#[derive(Debug)]
pub struct Descriptor {
    /// Type of the sums.
    pub(crate) sums: Element,
    /// How a half type is stored, if the output is one: a `&'static Half<f32>`.
    pub(crate) half: *const Half<f32>,
    /// The micro-kernel's rows come from the right operand.
    pub(crate) swapped: bool,
    pub(crate) g: usize,
    pub(crate) m: usize,
    pub(crate) n: usize,
    /// Steps of the sums: terms, or groups of terms that are multiplied together.
    pub(crate) k: usize,
    /// Terms of the sums.
    pub(crate) terms: usize,
    pub(crate) mr: usize,
    pub(crate) nr: usize,
    pub(crate) mc: usize,
    pub(crate) nc: usize,
    pub(crate) kc: usize,
    pub(crate) k_chunk: usize,
    pub(crate) m_tiles: usize,
    pub(crate) n_tiles: usize,
    pub(crate) k_splits: usize,
    pub(crate) rows: Operand,
    pub(crate) columns: Operand,
    pub(crate) out_batch: *const i64,
    pub(crate) out_m: *const i32,
    pub(crate) m_period: Period,
    pub(crate) n_period: Period,
    pub(crate) out_group_start: *const u32,
    pub(crate) out_segments: *const Segment,
    pub(crate) epilogue: EpilogueCode,
    /// `&'static Table<f32>`, `<f64>` or `<i32>`, after `sums`.
    pub(crate) table: *const (),
    /// Which of the table's shapes.
    pub(crate) shape: usize,
    /// The shape of the last panel of columns, with its columns and registers.
    pub(crate) last_shape: usize,
    pub(crate) last_nr: usize,
    pub(crate) last_vectors: usize,
    /// Elements from the start of scratch to the column panel and to the partial tile.
    pub(crate) scratch_columns: usize,
    pub(crate) scratch_partial: usize,
    /// The same to the vectors of the epilogue of a half type, as `f32`.
    pub(crate) scratch_vectors: usize,
    /// Whether tiles share column panels, which are behind the partial sums, as are their flags: bytes to both.
    pub(crate) columns_shared: bool,
    pub(crate) shared_flags: usize,
    pub(crate) shared_panels: usize,
    /// Elements from step to step of a column panel that is a run in memory; 0 if panels are not, or steps differ.
    pub(crate) columns_step: usize,
    /// Whether column panels that are such runs are read as they lie; the others are packed. Then all steps are
    /// `columns_step` apart.
    pub(crate) columns_in_place: bool,
    /// Registers that one row of the register block takes.
    pub(crate) vectors: usize,
    /// Whether blocks are inner products. Then columns are read as they lie, `columns_step` apart, unlike other blocks'.
    pub(crate) inner: bool,
    /// Elements from row to row if rows are read as they lie, along the sum; else 0.
    pub(crate) rows_step: usize,
}

impl Descriptor {
    /// Shape and columns of the panel that starts at `n`.
    pub(crate) fn panel_shape(&self, n: usize) -> (usize, usize) {
        if n + self.nr < self.n { (self.shape, self.nr) } else { (self.last_shape, self.last_nr) }
    }

    /// Rows of a macro tile: tiles differ by one panel at most.
    pub(crate) fn tile_rows(&self, m_tile: usize) -> Range<usize> {
        cut(self.m, self.mr, self.m_tiles, m_tile)
    }

    /// Columns of a macro tile, likewise.
    pub(crate) fn tile_columns(&self, n_tile: usize) -> Range<usize> {
        cut(self.n, self.nr, self.n_tiles, n_tile)
    }

    /// The panel, of `panels` column panels, with which a tile begins. Tiles that share panels begin apart.
    pub(crate) fn first_panel(&self, m_tile: usize, panels: usize) -> usize {
        if self.columns_shared { m_tile * panels / self.m_tiles } else { 0 }
    }

    /// Column panels of all k blocks of all packed copies, of which `copies` exist.
    pub(crate) fn shared_count(&self, copies: usize) -> usize {
        copies * self.k_blocks() * self.n.div_ceil(self.nr)
    }

    /// Number of the shared panel that begins at column `n` and step `k0`.
    pub(crate) fn shared_panel(&self, copy: usize, n: usize, k0: usize) -> usize {
        (copy * self.k_blocks() + k0 / self.kc.max(1)) * self.n.div_ceil(self.nr) + n / self.nr
    }

    fn k_blocks(&self) -> usize {
        self.k.div_ceil(self.kc.max(1)).max(1)
    }

    /// Elements in one register.
    pub(crate) fn lanes(&self) -> usize {
        self.nr / self.vectors.max(1)
    }
}

/// Part `tile` of `tiles` parts of `extent` indices in panels of `width`.
fn cut(extent: usize, width: usize, tiles: usize, tile: usize) -> Range<usize> {
    let panels = extent.div_ceil(width);
    let begin = |tile: usize| extent.min(tile * panels / tiles * width);
    begin(tile)..begin(tile + 1)
}

/// The buffers of one run of a contraction. Null where the plan asks for none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Arguments {
    /// Left operand: the tensor, or its panels if the plan was built with `Packed::left`.
    pub left: *const u8,
    /// Right operand, likewise.
    pub right: *const u8,
    /// Output tensor. May be the residual, never an operand.
    pub out: *mut u8,
    /// `[M]` or `[N]`, after the epilogue.
    pub bias: *const u8,
    /// `[M]` or `[N]`, after the epilogue.
    pub scale: *const u8,
    /// Addressed as `out`.
    pub residual: *const u8,
    /// `ContractPlan::partial_bytes`, shared by all workers, 64-byte aligned.
    pub partials: *mut u8,
    /// `ContractPlan::scratch_bytes` of this worker, 64-byte aligned.
    pub scratch: *mut u8,
}

/// What a block multiplies: packed, or in the tensor where its steps are equally far apart.
#[derive(Clone, Copy)]
pub(crate) struct Panel<T> {
    pub(crate) at: *const T,
    /// Elements from step to step; from column to column of inner products.
    pub(crate) step: usize,
}

/// Memory that is brought into the second-level cache while a block is computed, one line at each step of its sum.
#[derive(Clone, Copy)]
pub(crate) struct Ahead<T> {
    pub(crate) at: *const T,
    /// Elements from line to line.
    pub(crate) step: usize,
}

impl<T> Ahead<T> {
    /// Nothing: the same line again and again, which is at hand.
    pub(crate) fn nothing(near: *const T) -> Self {
        Self { at: near, step: 0 }
    }
}

/// One call of a micro-kernel: an `R x nr` block over one k block.
pub(crate) struct TileCall<T: 'static> {
    pub(crate) k: usize,
    /// `[k][R]`, or rows that run along the sum.
    pub(crate) a: *const T,
    /// Elements from row to row of the latter.
    pub(crate) a_row: usize,
    /// `k` steps of `nr` columns, or columns of `k` terms.
    pub(crate) b: Panel<T>,
    /// What the next blocks will read: of rows, of columns.
    pub(crate) ahead: [Ahead<T>; 2],
    pub(crate) partial: *mut T,
    pub(crate) partial_stride: usize,
    /// Start from the partial sums instead of zero.
    pub(crate) load: bool,
    /// Apply the epilogue and store to `out`; otherwise store partial sums.
    pub(crate) last: bool,
    pub(crate) out: *mut T,
    pub(crate) rows: *const i32,
    pub(crate) group_start: *const u32,
    pub(crate) segments: *const Segment,
    /// Valid columns, at most `nr`.
    pub(crate) columns: usize,
    pub(crate) residual: *const T,
    pub(crate) bias_m: *const T,
    pub(crate) bias_n: *const T,
    pub(crate) scale_m: *const T,
    pub(crate) scale_n: *const T,
    pub(crate) activation: u32,
    pub(crate) alpha: [T; 2],
    pub(crate) activate: ActivateFn<T>,
    pub(crate) transpose: TransposeFn<T>,
    /// If `out` and `residual` point to half types.
    pub(crate) half: Option<&'static Half<T>>,
}

impl<T: Real> TileCall<T> {
    /// A call that writes sums of `k` terms, in rows `partial_stride` apart; its operands are to be filled in.
    pub(crate) fn sums(k: usize, partial_stride: usize, table: &Table<T>) -> Self {
        Self {
            k,
            a: null(),
            a_row: 0,
            b: Panel { at: null(), step: 0 },
            // A prefetch of an address that is not mapped would walk the page tables each time.
            ahead: [Ahead::nothing(std::ptr::from_ref(table).cast()); 2],
            partial: null_mut(),
            partial_stride,
            load: false,
            last: false,
            out: null_mut(),
            rows: null(),
            group_start: null(),
            segments: null(),
            columns: 0,
            residual: null(),
            bias_m: null(),
            bias_n: null(),
            scale_m: null(),
            scale_n: null(),
            activation: 0,
            alpha: [T::ZERO; 2],
            activate: table.activate,
            transpose: table.transpose,
            half: None,
        }
    }
}

/// Packs free indices of `panel` and steps `k0..k1` of the tables into `to`, `[k1 - k0][stride]`; `valid` free indices
/// exist. For the functions of a level, panel and steps are within the tables (see [`PackCall::within_tables`]).
pub(crate) struct PackCall<'a, T> {
    pub(crate) operand: &'a Operand,
    /// The tensor, already advanced to its batch.
    pub(crate) from: *const T,
    pub(crate) panel: usize,
    pub(crate) valid: usize,
    pub(crate) stride: usize,
    pub(crate) k0: usize,
    pub(crate) k1: usize,
    pub(crate) to: *mut T,
}

impl<T> PackCall<'_, T> {
    /// Calls `pack` for each part of the steps that tables have as they are.
    pub(crate) fn within_tables(&self, mut pack: impl FnMut(&PackCall<'_, T>)) {
        let op = self.operand;
        let (across, free) = op.free_period.split(self.panel * op.width);
        let mut k0 = self.k0;
        while k0 < self.k1 {
            let (along, begin) = op.k_period.split(k0);
            let end = op.k_period.len.min(begin + self.k1 - k0);
            pack(&PackCall {
                operand: op,
                from: self.from.wrapping_offset(across + along),
                panel: free / op.width,
                valid: self.valid,
                stride: self.stride,
                k0: begin,
                k1: end,
                to: self.to.wrapping_add((k0 - self.k0) * self.stride),
            });
            k0 += end - begin;
        }
    }
}

pub(crate) type TileFn<T> = unsafe fn(&TileCall<T>);
pub(crate) type PackFn<T> = unsafe fn(&PackCall<'_, T>);
/// In place over a strip: activation code, its constants, data, length.
pub(crate) type ActivateFn<T> = unsafe fn(u32, [T; 2], *mut T, usize);

/// A block `[rows][width]` of at most [`GROUP`] rows, to `[width][GROUP]`: rows, width, block, result.
pub(crate) type TransposeFn<T> = unsafe fn(usize, usize, *const T, *mut T);

/// Micro-kernels of one width: `rows[r - 1]` handles `r` rows.
pub(crate) struct Shape<T: 'static> {
    /// Whether lanes are terms of the sum, of operands that run along it.
    pub(crate) inner: bool,
    pub(crate) nr: usize,
    pub(crate) vectors: usize,
    pub(crate) rows: &'static [TileFn<T>],
    /// The same with rows that are read as they lie, along the sum, of up to so many; inner products do so anyway.
    pub(crate) in_place: &'static [TileFn<T>],
}

/// A function for each count of rows, such as `blocks!(f, 3; 1 2)` for `&[f::<1, 3>, f::<2, 3>]`.
macro_rules! blocks {
    ($f:ident, $v:literal; $($rows:literal)+) => { &[$($f::<$rows, $v>),+] };
    ($f:ident; $($rows:literal)+) => { &[$($f::<$rows>),+] };
}
pub(super) use blocks;

/// The kernels of one level and element type.
pub(crate) struct Table<T: Real> {
    pub(crate) name: &'static str,
    /// Terms of the sum in one element of a panel.
    pub(crate) terms: usize,
    pub(crate) shapes: &'static [Shape<T>],
    /// Of operands whose elements are what panels hold.
    pub(crate) pack: PackFn<T>,
    /// Of others.
    pub(crate) convert: PackFn<T>,
    pub(crate) activate: ActivateFn<T>,
    pub(crate) transpose: TransposeFn<T>,
}
