#![allow(
    unsafe_code,
    reason = "the descriptor holds pointers into tables that the plan owns and never changes; `run` calls entry points"
)]
//! From affine reads to a compiled contraction: the safe builder of [`Descriptor`]s.

use super::abi::{Arguments, Descriptor, EpilogueCode, GROUP, Operand, Shape};
use super::choice::{self, ContractChoice, Extents, SumOrder, turned};
use super::drive::{contract_begin, contract_reduce, contract_tiles, pack_operand};
use super::estimate::Estimate;
use super::gather::{GatherTables, OutAxis, OutTables, Read, offsets_of};
use super::shared::Flags;
use super::spec::{Along, ContractError, ContractSpec, Element, Epilogue, Packed, Side};
use super::tiling::{Tiling, block_cost};
use super::{Kernels, simd::Real};

/// A compiled contraction: descriptor, its tables, and the sizes its caller must provide.
#[derive(Debug)]
pub struct ContractPlan {
    descriptor: Box<Descriptor>,
    tiling: Tiling,
    kernel: String,
    packed: Packed,
    element_bytes: usize,
    scratch_elements: usize,
    tables: Tables,
    decision: Decision,
}

/// What was chosen among what.
#[derive(Debug)]
struct Decision {
    choice: ContractChoice,
    order: SumOrder,
    /// The order of the plan that the cost model makes.
    estimated: SumOrder,
    extents: Extents,
    blocks: Vec<Block>,
}

/// What the descriptor points into.
#[derive(Debug)]
struct Tables {
    rows: GatherTables,
    columns: GatherTables,
    out: OutTables,
}

// SAFETY: the descriptor's pointers lead into `tables` and to statics; nothing changes after `new`.
unsafe impl Send for ContractPlan {}
// SAFETY: as above; all access is read-only.
unsafe impl Sync for ContractPlan {}

impl ContractPlan {
    /// Compiles `spec` for the kernels of one level.
    ///
    /// # Errors
    /// [`ContractError`] when the spec is malformed or beyond the tables.
    pub fn new(spec: &ContractSpec, kernels: &Kernels) -> Result<Self, ContractError> {
        Self::choosing(spec, kernels, None)
    }

    /// As [`ContractPlan::new`], with a choice in place of the cost model's, as far as it is possible. Whoever must not
    /// change bits asks [`ContractPlan::keeps_bits`].
    ///
    /// # Errors
    /// As [`ContractPlan::new`].
    pub fn with(spec: &ContractSpec, kernels: &Kernels, choice: &ContractChoice) -> Result<Self, ContractError> {
        Self::choosing(spec, kernels, Some(choice))
    }

    fn choosing(
        spec: &ContractSpec,
        kernels: &Kernels,
        choice: Option<&ContractChoice>,
    ) -> Result<Self, ContractError> {
        match spec.element {
            Element::F32 => Self::build(spec, kernels.f32, 4, choice),
            Element::F64 => Self::build(spec, kernels.f64, 8, choice),
        }
    }

    fn build<T: Real>(
        spec: &ContractSpec,
        table: &'static super::abi::Table<T>,
        element_bytes: usize,
        wanted: Option<&ContractChoice>,
    ) -> Result<Self, ContractError> {
        let (b, m, n) = (spec.batch.len(), spec.m.len(), spec.n.len());
        if spec.out_strides.len() != b + m + n {
            return Err(ContractError::WrongDimension);
        }
        let size = |extents: &[usize]| {
            extents
                .iter()
                .try_fold(1usize, |product, e| product.checked_mul(*e))
                .filter(|product| *product < i32::MAX as usize)
                .ok_or(ContractError::TooLarge)
        };
        let sizes = [size(&spec.batch)?, size(&spec.m)?, size(&spec.n)?, size(&spec.k)?];
        if sizes[..3].contains(&0) {
            return Err(ContractError::Empty);
        }
        let strides = |from: usize, count: usize| &spec.out_strides[from..from + count];
        let out_m = OutAxis::new(&spec.m, strides(b, m))?;
        let out_n = OutAxis::new(&spec.n, strides(b + m, n))?;
        let Packed { left: left_packed, right: right_packed } = spec.packed;
        let operands = [(&out_m, left_packed), (&out_n, right_packed)];
        let blocks = blocks(table, operands, sizes[3]);
        let cheapest = blocks.iter().copied().reduce(|best, next| if next.cycles < best.cycles { next } else { best });
        let cheapest = cheapest.ok_or(ContractError::Empty)?;
        let wanted_block = wanted.and_then(|choice| blocks.iter().find(|block| choice::is_of(table, block, choice)));
        let block = wanted_block.copied().unwrap_or(cheapest);
        let Block { swapped, shape, last, mr, .. } = block;

        let side = |dims: std::ops::Range<usize>, extents: &[usize]| Read {
            batch: spec.batch.clone(),
            free: extents.to_vec(),
            free_first: dims.start,
            k: spec.k.clone(),
            k_first: b + m + n,
        };
        let left = (&spec.left, side(b..b + m, &spec.m), spec.packed.left);
        let right = (&spec.right, side(b + m..b + m + n, &spec.n), spec.packed.right);
        let (rows, columns) = if swapped { (right, left) } else { (left, right) };
        let (out_rows, out_columns) = if swapped { (out_n, out_m) } else { (out_m, out_n) };
        let (g, m, n, k) = (sizes[0], out_rows.len, out_columns.len, sizes[3]);

        let nr = table.shapes[shape].nr;
        let mut tables = Tables {
            rows: GatherTables::new(rows.0, &rows.1, mr)?,
            columns: GatherTables::new(columns.0, &columns.1, nr)?,
            out: OutTables::new(
                offsets_of(&spec.batch, strides(0, b))?,
                spec.out_offset,
                (&out_rows, mr),
                (&out_columns, nr),
            )?,
        };
        let by_operand = |rows: bool, columns: bool| {
            let (left, right) = if swapped { (columns, rows) } else { (rows, columns) };
            Packed { left, right }
        };
        let may_pack = match spec.shares_panels {
            true => by_operand(tables.rows.is_dense(rows.0), tables.columns.is_dense(columns.0)),
            false => Packed::default(),
        };
        let (left, right) = if swapped { (n, m) } else { (m, n) };
        let extents = Extents { g, left, right, k, packed: spec.packed, may_pack };
        let by_estimate = |block: &Block| {
            let (choice, tiling) = extents.estimate(block, table.shapes[block.shape].nr);
            (choice, tiling, extents.with(choice.ahead))
        };
        let order = |block: &Block, tiling: &Tiling| {
            SumOrder::new(table, if block.swapped { (right, left) } else { (left, right) }, block, tiling)
        };
        let estimated = by_estimate(&cheapest);
        let of_choice = wanted
            .filter(|_| wanted_block.is_some())
            .and_then(|choice| Some((*choice, extents.cut(&block, choice)?, extents.with(choice.ahead))));
        // Of a wish that cannot be had the block is left, and the cost model cuts that.
        let (choice, tiling, ahead) =
            of_choice.unwrap_or_else(|| if wanted_block.is_some() { by_estimate(&block) } else { estimated });
        let decision = Decision {
            choice,
            order: order(&block, &tiling),
            estimated: order(&cheapest, &estimated.1),
            extents,
            blocks,
        };
        let (rows_ahead, columns_shared) = turned(ahead, swapped);
        let (rows_packed, columns_packed) = (rows.2 | rows_ahead, columns.2);
        tables.rows.packed = rows_packed;
        tables.columns.packed = columns_packed;

        let align = |elements: usize| elements.next_multiple_of(64 / element_bytes);
        let row_block = if rows_packed { 0 } else { tiling.mc.min(m) * tiling.kc };
        let column_block = if columns_packed { 0 } else { nr * tiling.kc };
        let keeps_partial = tiling.k_splits == 1 && tiling.kc < k;
        let partial = if keeps_partial { tiling.mc * tiling.nc } else { 0 };
        let scratch_columns = align(row_block);
        let scratch_partial = scratch_columns + align(column_block);
        let sums = if tiling.k_splits == 1 { 0 } else { tiling.k_splits * g * m * n.next_multiple_of(nr) };
        let mut descriptor = Box::new(Descriptor {
            double: element_bytes == 8,
            swapped,
            g,
            m,
            n,
            k,
            mr,
            nr,
            mc: tiling.mc,
            nc: tiling.nc,
            kc: tiling.kc,
            k_chunk: tiling.k_chunk,
            m_tiles: tiling.m_tiles,
            n_tiles: tiling.n_tiles,
            k_splits: tiling.k_splits,
            rows: tables.rows.operand(),
            columns: tables.columns.operand(),
            out_batch: tables.out.batch.as_ptr(),
            out_m: tables.out.m.as_ptr(),
            m_period: tables.out.m_period,
            n_period: tables.out.n_period,
            out_group_start: tables.out.group_start.as_ptr(),
            out_segments: tables.out.segments.as_ptr(),
            epilogue: epilogue_code(&spec.epilogue, swapped),
            table: std::ptr::from_ref(table).cast(),
            shape,
            last_shape: last,
            last_nr: table.shapes[last].nr,
            last_vectors: table.shapes[last].vectors,
            scratch_columns,
            scratch_partial,
            columns_shared,
            shared_flags: align(sums) * element_bytes,
            shared_panels: 0,
            columns_step: tables.columns.step_of_runs(),
            vectors: table.shapes[shape].vectors,
        });
        let flags = if columns_shared { descriptor.shared_count(tables.columns.packed_copies()) } else { 0 };
        descriptor.shared_panels = descriptor.shared_flags + Flags::bytes(flags);
        Ok(Self {
            descriptor,
            tiling,
            kernel: format!("{}-{mr}x{nr}", table.name),
            packed: by_operand(rows_packed, columns_packed),
            element_bytes,
            scratch_elements: scratch_partial + align(partial),
            tables,
            decision,
        })
    }

    /// What the entry points take; valid as long as the plan lives, wherever the plan is moved.
    pub fn descriptor(&self) -> *const Descriptor {
        std::ptr::from_ref(&*self.descriptor)
    }

    /// Count of tiles for `contract_tiles`; tiles are independent.
    pub fn tiles(&self) -> u64 {
        let d = &self.descriptor;
        (d.g * d.m_tiles * d.n_tiles * d.k_splits) as u64
    }

    /// Count of tiles for `contract_reduce`, to be run after all tiles; 0 when the sum is not split.
    pub fn reduce_tiles(&self) -> u64 {
        let d = &self.descriptor;
        if d.k_splits > 1 { (d.g * d.m.div_ceil(d.mr)) as u64 } else { 0 }
    }

    /// Bytes of scratch each worker needs.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_elements * self.element_bytes
    }

    /// Bytes that all workers share: partial sums when the sum is split, and column panels that tiles share.
    pub fn partial_bytes(&self) -> usize {
        let d = &self.descriptor;
        d.shared_panels + if d.columns_shared { self.panel_bytes(false) } else { 0 }
    }

    /// Whether `contract_begin` has to be run before the tiles.
    pub fn shares_panels(&self) -> bool {
        self.descriptor.columns_shared
    }

    /// The operands that the caller passes as panels: those of the spec, and rows that tiles would pack again and again.
    pub fn packed(&self) -> Packed {
        self.packed
    }

    /// Bytes of one operand's panels.
    pub fn packed_bytes(&self, side: Side) -> usize {
        self.panel_bytes((side == Side::Left) != self.descriptor.swapped)
    }

    fn panel_bytes(&self, rows: bool) -> usize {
        let d = &self.descriptor;
        let (tables, free) =
            if rows { (&self.tables.rows, d.m) } else { (&self.tables.columns, d.n.next_multiple_of(d.nr)) };
        tables.packed_copies() * free * d.k * self.element_bytes
    }

    /// Level, element and register block, such as `avx512-f32-13x32`.
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// The cut of the loop nest, in the micro-kernel's orientation.
    pub fn tiling(&self) -> &Tiling {
        &self.tiling
    }

    /// How it is computed, among all ways.
    pub fn choice(&self) -> ContractChoice {
        self.decision.choice
    }

    /// In which order its sums are added.
    pub fn order(&self) -> SumOrder {
        self.decision.order
    }

    /// Whether it computes the bits of [`ContractPlan::new`].
    pub fn keeps_bits(&self) -> bool {
        self.decision.order == self.decision.estimated
    }

    /// Other ways that may be faster, best first by estimate; those only that compute the same bits, unless
    /// `rounding` may change. `kernels` are those of the plan.
    pub fn alternatives(&self, kernels: &Kernels, rounding: bool) -> Vec<ContractChoice> {
        let Decision { choice, order, extents, blocks, .. } = &self.decision;
        let order = (!rounding).then_some(*order);
        match self.element_bytes {
            8 => choice::alternatives(kernels.f64, extents, blocks, choice, order),
            _ => choice::alternatives(kernels.f32, extents, blocks, choice, order),
        }
    }

    /// Elements of the output.
    pub fn outputs(&self) -> u64 {
        let d = &self.descriptor;
        (d.g * d.m * d.n) as u64
    }

    /// Multiply-adds of all tiles together.
    pub fn multiply_adds(&self) -> u64 {
        self.outputs() * self.descriptor.k as u64
    }

    /// Bytes of one element.
    pub fn element_bytes(&self) -> usize {
        self.element_bytes
    }

    /// Elements that an operand contributes if none is read twice: rows or columns by terms of the sum, in each batch.
    pub fn read_elements(&self, side: Side) -> u64 {
        let d = &self.descriptor;
        let rows = (side == Side::Left) != d.swapped;
        (d.g * if rows { d.m } else { d.n } * d.k) as u64
    }

    /// What the plan spends its time on, by estimate.
    pub fn estimate(&self) -> Estimate {
        Estimate::of(&self.descriptor, &self.tables.rows, &self.tables.columns, &self.tables.out)
    }

    /// Whether the micro-kernel takes its rows from the right operand.
    pub fn swapped(&self) -> bool {
        self.descriptor.swapped
    }

    /// How each operand is packed, for humans: `(left, right)`.
    pub fn packing(&self) -> (String, String) {
        let (rows, columns) = (self.tables.rows.describe(), self.tables.columns.describe());
        if self.descriptor.swapped { (columns, rows) } else { (rows, columns) }
    }

    /// Runs all tiles on this thread.
    ///
    /// # Safety
    /// The contract of the entry points, with the buffers in `arguments`.
    pub unsafe fn run(&self, arguments: &Arguments) {
        // SAFETY: passed on to the caller.
        unsafe {
            if self.shares_panels() {
                contract_begin(self.descriptor(), arguments, 0, 1);
            }
            contract_tiles(self.descriptor(), arguments, 0, self.tiles());
            contract_reduce(self.descriptor(), arguments, 0, self.reduce_tiles());
        }
    }

    /// Count of independent pieces of work in packing an operand.
    pub fn pack_tiles(&self, side: Side) -> u64 {
        let tables = self.tables(side);
        tables.free_len.div_ceil(tables.width) as u64
    }

    /// Packs pieces `begin..end` of one operand's [`Self::pack_tiles`].
    ///
    /// # Safety
    /// `from` is the operand's tensor; `to` holds [`Self::packed_bytes`] bytes; no other thread packs these pieces.
    pub unsafe fn pack(&self, side: Side, from: *const u8, to: *mut u8, (begin, end): (u64, u64)) {
        // SAFETY: passed on to the caller.
        unsafe { pack_operand(self.descriptor(), side.code(), from, to, begin, end) }
    }

    fn tables(&self, side: Side) -> &GatherTables {
        let rows = (side == Side::Left) != self.descriptor.swapped;
        if rows { &self.tables.rows } else { &self.tables.columns }
    }
}

/// A register block in one orientation, and the estimated cycles of the whole contraction with it, but for those of tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) cycles: f64,
    /// Rows are those of the right operand.
    pub(super) swapped: bool,
    pub(super) shape: usize,
    /// Of the last panel of columns.
    pub(super) last: usize,
    pub(super) mr: usize,
}

/// All blocks, those first whose rows are the left operand's. Operands are given as what their free index is in the output,
/// and whether they come packed.
fn blocks<T: Real>(
    table: &super::abi::Table<T>,
    [(out_m, left_packed), (out_n, right_packed)]: [(&OutAxis<'_>, bool); 2],
    k: usize,
) -> Vec<Block> {
    // Measured on Zen 5: packing sixteen lanes of one step, storing one run of one row.
    const PACK: f64 = 5.0;
    const STORE: f64 = 2.0;
    // One column of a block that is turned before it is stored.
    const TURN: f64 = 10.0;
    let k = k as f64;
    let breaks = [out_m.breaks, out_n.breaks];
    let of = |swapped: bool, shape: usize| {
        let candidate = &table.shapes[shape];
        let (m, n) = if swapped { (out_n.len, out_m.len) } else { (out_m.len, out_n.len) };
        let [row_breaks, column_breaks] = if swapped { [breaks[1], breaks[0]] } else { breaks };
        let (rows_packed, columns_packed) =
            if swapped { (right_packed, left_packed) } else { (left_packed, right_packed) };
        let straight = STORE * (column_breaks + n.div_ceil(GROUP)) as f64 * m as f64;
        let turns = row_breaks == 0 && column_breaks + 1 == n;
        let panels = m.div_ceil(candidate.rows.len());
        let mr = m.div_ceil(panels);
        let last = last_shape(table, shape, n, mr);
        let widest = table.shapes[last].vectors;
        let sums = block_cost(m, mr, n.div_ceil(candidate.nr), candidate.vectors, widest) as f64 / 2.0;
        let groups = |len: usize, width: usize| len.div_ceil(width) * width.div_ceil(GROUP);
        let pack = |packed: bool, groups: usize| if packed { 0.0 } else { PACK * groups as f64 };
        let packs = pack(rows_packed, groups(m, mr)) + pack(columns_packed, groups(n, candidate.nr));
        let stores = if turns { straight.min(TURN * (n * panels) as f64) } else { straight };
        Block { cycles: k * (sums + packs) + stores, swapped, shape, last, mr }
    };
    [false, true]
        .into_iter()
        .flat_map(|swapped| (0..table.shapes.len()).map(move |shape| (swapped, shape)))
        .map(|(swapped, shape)| of(swapped, shape))
        .collect()
}

/// The narrowest shape that holds the columns left for the last panel: 196 are six panels of 32 and four columns.
fn last_shape<T: Real>(table: &super::abi::Table<T>, shape: usize, n: usize, mr: usize) -> usize {
    let widest = table.shapes[shape].nr;
    let columns = n - n.saturating_sub(1) / widest * widest;
    let fits = |(at, other): (usize, &Shape<T>)| {
        // Panels are packed in groups.
        let holds = (columns..widest).contains(&other.nr) && other.nr.is_multiple_of(GROUP);
        (holds && other.rows.len() >= mr).then_some((other.nr, at))
    };
    table.shapes.iter().enumerate().filter_map(fits).min().map_or(shape, |(_, narrow)| narrow)
}

fn epilogue_code(epilogue: &Epilogue, swapped: bool) -> EpilogueCode {
    let along = |a: Option<Along>| match a {
        None => 0,
        Some(a) if (a == Along::M) != swapped => 1,
        Some(_) => 2,
    };
    let (activation, alpha) = epilogue.activation.code();
    EpilogueCode {
        bias: along(epilogue.bias),
        scale: along(epilogue.scale),
        residual: u32::from(epilogue.residual),
        activation,
        alpha,
    }
}

impl GatherTables {
    /// The ABI view; valid while `self` is neither changed nor dropped.
    fn operand(&self) -> Operand {
        Operand {
            batch: self.batch.as_ptr(),
            free: self.free.as_ptr(),
            k: self.k.as_ptr(),
            free_len: self.free_len,
            free_period: self.free_period,
            k_period: self.k_period,
            lanes_along_k: self.lanes_along_k,
            checked: self.checked,
            packed: self.packed,
            width: self.width,
            groups_per_panel: self.width.div_ceil(GROUP),
            group_start: self.group_start.as_ptr(),
            segments: self.segments.as_ptr(),
            class: self.class.as_ptr(),
            masks: self.masks.as_ptr(),
            mask_stride: self.mask_stride,
            classes: self.classes,
            packed_batch: self.packed_batch.as_ptr(),
        }
    }
}
