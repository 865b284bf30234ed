#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "the C entry points; their contract is stated once in `kernels.rs`"
)]
//! The entry points: macro tiles, the reduction of k splits, and packing ahead of time.

use std::ops::Range;
use std::ptr::null;

use super::abi::{Ahead, Arguments, Descriptor, GROUP, Operand, PackCall, PackFn, Table, TileCall};
use super::half::Half;
use super::simd::Real;
use super::spec::Element;

/// Elements that a block takes of a vector of the epilogue, at most.
pub(super) const VECTOR: usize = 64;

/// Computes tiles `begin..end` of the contraction.
///
/// # Safety
/// See the module's documentation, "Contract of the entry points".
pub unsafe extern "C" fn contract_tiles(
    descriptor: *const Descriptor,
    arguments: *const Arguments,
    begin: u64,
    end: u64,
) {
    let (d, a) = (&*descriptor, &*arguments);
    let (begin, end) = (begin as usize, end as usize);
    match d.sums {
        Element::F64 => Run::<f64>::new(d, a).tiles(begin, end),
        Element::I32 => Run::<i32>::new(d, a).tiles(begin, end),
        _ => Run::<f32>::new(d, a).tiles(begin, end),
    }
}

/// Sums the partial results of a contraction split along k, applies the epilogue and stores: `begin..end` of
/// `ContractPlan::reduce_tiles`.
///
/// # Safety
/// See the module's documentation, "Contract of the entry points". Every tile has been computed.
pub unsafe extern "C" fn contract_reduce(
    descriptor: *const Descriptor,
    arguments: *const Arguments,
    begin: u64,
    end: u64,
) {
    let (d, a) = (&*descriptor, &*arguments);
    let (begin, end) = (begin as usize, end as usize);
    match d.sums {
        Element::F64 => Run::<f64>::new(d, a).reduce(begin, end),
        Element::I32 => Run::<i32>::new(d, a).reduce(begin, end),
        _ => Run::<f32>::new(d, a).reduce(begin, end),
    }
}

/// Packs panels `begin..end` of an operand ahead of time: `side` 0 is the left operand, 1 the right. Panels are
/// independent; there are `ContractPlan::pack_tiles` of them.
///
/// # Safety
/// `from` is the operand's tensor; `to` holds `ContractPlan::packed_bytes` bytes.
pub unsafe extern "C" fn pack_operand(
    descriptor: *const Descriptor,
    side: u64,
    from: *const u8,
    to: *mut u8,
    begin: u64,
    end: u64,
) {
    let d = &*descriptor;
    let rows = (side == 0) != d.swapped;
    let panels = begin as usize..end as usize;
    match d.sums {
        Element::F64 => pack_panels::<f64>(d, rows, from, to.cast(), panels),
        Element::I32 => pack_panels::<i32>(d, rows, from, to.cast(), panels),
        _ => pack_panels::<f32>(d, rows, from, to.cast(), panels),
    }
}

unsafe fn table<T: Real>(d: &Descriptor) -> &'static Table<T> {
    &*d.table.cast::<Table<T>>()
}

/// The packer of an operand.
unsafe fn packer<T: Real>(table: &Table<T>, op: &Operand) -> PackFn<T> {
    if op.native { table.pack } else { table.convert }
}

/// The tensor of an operand, advanced to batch `g`; what it points to is the packer's to know.
unsafe fn advanced<T>(op: &Operand, tensor: *const u8, g: usize) -> *const T {
    tensor.wrapping_offset(*op.batch.add(g) as isize * op.element.bytes() as isize).cast()
}

unsafe fn pack_panels<T: Real>(d: &Descriptor, rows: bool, from: *const u8, to: *mut T, panels: Range<usize>) {
    let op = if rows { &d.rows } else { &d.columns };
    let padded = packed_len(op, rows);
    let mut done = 0;
    for g in 0..d.g {
        let copy = *op.packed_batch.add(g) as usize;
        if copy < done {
            continue;
        }
        done = copy + 1;
        let to = to.add(copy * padded * d.k);
        for k0 in blocks(0, d.k, d) {
            let k1 = block_end(k0, d.k, d);
            for panel in panels.clone() {
                let start = panel * op.width;
                let valid = op.width.min(op.free_len - start);
                packer(table::<T>(d), op)(&PackCall {
                    operand: op,
                    from: advanced(op, from, g),
                    panel,
                    valid,
                    stride: if rows { valid } else { d.panel_shape(start).1 },
                    k0,
                    k1,
                    to: to.add(k0 * padded + start * (k1 - k0)),
                });
            }
        }
    }
}

/// Free indices of a packed operand: row panels are as wide as they need, column panels are zero-filled.
fn packed_len(op: &Operand, rows: bool) -> usize {
    if rows { op.free_len } else { op.free_len.next_multiple_of(op.width) }
}

/// Starts of the k blocks of one k split. An empty sum is one empty block, so that its output is still written.
fn blocks(begin: usize, end: usize, d: &Descriptor) -> impl Iterator<Item = usize> {
    let count = (end - begin).div_ceil(d.kc).max(1);
    let kc = d.kc;
    (0..count).map(move |i| begin + i * kc)
}

fn block_end(k0: usize, end: usize, d: &Descriptor) -> usize {
    end.min(k0 + d.kc)
}

struct Run<'a, T: Real> {
    d: &'a Descriptor,
    table: &'static Table<T>,
    /// Tensors, or panels of `T`.
    rows: *const u8,
    columns: *const u8,
    /// Elements of `T`, or of a half type.
    out: *mut u8,
    residual: *const u8,
    bias: *const u8,
    scale: *const u8,
    half: Option<&'static Half<T>>,
    partials: *mut T,
    scratch: *mut T,
}

impl<'a, T: Real> Run<'a, T> {
    unsafe fn new(d: &'a Descriptor, a: &Arguments) -> Self {
        let (rows, columns) = if d.swapped { (a.right, a.left) } else { (a.left, a.right) };
        Self {
            d,
            table: table::<T>(d),
            rows,
            columns,
            out: a.out,
            residual: if d.epilogue.residual == 0 { null() } else { a.residual },
            bias: a.bias,
            scale: a.scale,
            half: d.half.cast::<Half<T>>().as_ref(),
            partials: a.partials.cast(),
            scratch: a.scratch.cast(),
        }
    }

    unsafe fn tiles(&self, begin: usize, end: usize) {
        let d = self.d;
        // Row panels in scratch are those of this (g, split, m tile): consecutive tiles along n share them.
        let mut held = usize::MAX;
        for tile in begin..end {
            let n_tile = tile % d.n_tiles;
            let outer = tile / d.n_tiles;
            let m_tile = outer % d.m_tiles;
            let split = outer / d.m_tiles % d.k_splits;
            let g = outer / d.m_tiles / d.k_splits;
            let one_block = self.tile(g, split, m_tile, n_tile, held == outer);
            held = if one_block { outer } else { usize::MAX };
        }
    }

    /// Computes one macro tile; true if it had a single k block, whose row panels are still in scratch.
    unsafe fn tile(&self, g: usize, split: usize, m_tile: usize, n_tile: usize, held: bool) -> bool {
        let d = self.d;
        let (m0, n0) = (m_tile * d.mc, n_tile * d.nc);
        let (m1, n1) = (d.m.min(m0 + d.mc), d.n.min(n0 + d.nc));
        let (k_begin, k_end) = (split * d.k_chunk, d.k.min((split + 1) * d.k_chunk));
        let lanes = 64 / size_of::<T>();
        let mut count = 0;
        for k0 in blocks(k_begin, k_end, d) {
            count += 1;
            let k1 = block_end(k0, k_end, d);
            let rows = self.row_panels(g, m0, m1, k0, k1, held);
            for n in (n0..n1).step_by(d.nr) {
                let columns = self.column_panel(g, n, k0, k1);
                let next_columns = self.columns_after(g, n, (n0, n1), (k0, k1), (k_begin, k_end));
                let (partial, stride) = if d.k_splits > 1 {
                    (self.partials.add(self.partial_at(split, g, m0, n)), self.partial_stride())
                } else {
                    let stride = d.nc.next_multiple_of(d.nr);
                    (self.scratch.add(d.scratch_partial + n - n0), stride)
                };
                for m in (m0..m1).step_by(d.mr) {
                    let mut call = self.call(g, m, n);
                    call.k = k1 - k0;
                    call.a = rows.add((m - m0) * (k1 - k0));
                    call.b = columns;
                    if d.rows.packed && n == n0 {
                        call.ahead[0] = Ahead { at: call.a.wrapping_add(d.mr * (k1 - k0)), step: d.mr };
                    }
                    // Each of the first row panels asks for one line of each step.
                    let line = (m - m0) / d.mr * lanes;
                    if let Some(next) = next_columns
                        && line < d.nr
                    {
                        call.ahead[1] = Ahead { at: next.wrapping_add(line), step: d.nr };
                    }
                    call.partial = partial.wrapping_add((m - m0) * stride);
                    call.partial_stride = stride;
                    call.load = k0 > k_begin;
                    call.last = k1 == k_end && d.k_splits == 1;
                    self.run(&call, n, m1 - m);
                }
            }
        }
        count == 1
    }

    unsafe fn run(&self, call: &TileCall<T>, n: usize, rows_left: usize) {
        let (shape, _) = self.d.panel_shape(n);
        (self.table.shapes[shape].rows[rows_left.min(self.d.mr) - 1])(call);
    }

    /// Packs (or finds) row panels `m0..m1` of one k block.
    unsafe fn row_panels(&self, g: usize, m0: usize, m1: usize, k0: usize, k1: usize, held: bool) -> *const T {
        let op = &self.d.rows;
        if op.packed {
            let copy = *op.packed_batch.add(g) as usize;
            return self.rows.cast::<T>().add(copy * op.free_len * self.d.k + k0 * op.free_len + m0 * (k1 - k0));
        }
        if !held {
            for m in (m0..m1).step_by(op.width) {
                let valid = op.width.min(m1 - m);
                packer(self.table, op)(&PackCall {
                    operand: op,
                    from: advanced(op, self.rows, g),
                    panel: m / op.width,
                    valid,
                    stride: valid,
                    k0,
                    k1,
                    to: self.scratch.add((m - m0) * (k1 - k0)),
                });
            }
        }
        self.scratch
    }

    /// Packs (or finds) the column panel that starts at `n`.
    unsafe fn column_panel(&self, g: usize, n: usize, k0: usize, k1: usize) -> *const T {
        let op = &self.d.columns;
        if let Some(panel) = self.packed_columns(g, n, k0, k1) {
            return panel;
        }
        let to = self.scratch.add(self.d.scratch_columns);
        packer(self.table, op)(&PackCall {
            operand: op,
            from: advanced(op, self.columns, g),
            panel: n / op.width,
            valid: op.width.min(op.free_len - n),
            stride: self.d.panel_shape(n).1,
            k0,
            k1,
            to,
        });
        to
    }

    /// Where the caller packed the column panel that starts at `n`, which may be past the last one.
    unsafe fn packed_columns(&self, g: usize, n: usize, k0: usize, k1: usize) -> Option<*const T> {
        let op = &self.d.columns;
        let padded = packed_len(op, false);
        let copy = *op.packed_batch.add(g) as usize;
        let columns = self.columns.cast::<T>();
        op.packed.then(|| columns.wrapping_add(copy * padded * self.d.k + k0 * padded + n * (k1 - k0)))
    }

    /// Where the caller packed the panel that is multiplied after the one at `n`: of this k block, of the next one, of the
    /// next tile.
    unsafe fn columns_after(
        &self,
        g: usize,
        n: usize,
        (n0, n1): (usize, usize),
        (k0, k1): (usize, usize),
        (k_begin, k_end): (usize, usize),
    ) -> Option<*const T> {
        let d = self.d;
        if n + d.nr < n1 {
            self.packed_columns(g, n + d.nr, k0, k1)
        } else if k1 < k_end {
            self.packed_columns(g, n0, k1, block_end(k1, k_end, d))
        } else {
            self.packed_columns(g, n1, k_begin, block_end(k_begin, k_end, d))
        }
    }

    /// A call for the block at `(m, n)` with everything but its operands.
    unsafe fn call(&self, g: usize, m: usize, n: usize) -> TileCall<T> {
        let d = self.d;
        let bytes = if self.half.is_some() { size_of::<u16>() } else { size_of::<T>() } as isize;
        let moved = |tensor: *const u8| {
            if tensor.is_null() { null() } else { tensor.wrapping_offset(*d.out_batch.add(g) as isize * bytes) }
        };
        let (rows, columns) = (d.mr.min(d.m - m), d.nr.min(d.n - n));
        TileCall {
            last: true,
            out: moved(self.out).cast_mut().cast(),
            rows: d.out_m.add(m),
            group_start: d.out_group_start.add(n / d.nr * d.nr.div_ceil(GROUP)),
            segments: d.out_segments,
            columns,
            residual: moved(self.residual).cast(),
            bias_m: self.vector(0, self.bias, d.epilogue.bias == 1, m, rows),
            bias_n: self.vector(1, self.bias, d.epilogue.bias == 2, n, columns),
            scale_m: self.vector(2, self.scale, d.epilogue.scale == 1, m, rows),
            scale_n: self.vector(3, self.scale, d.epilogue.scale == 2, n, columns),
            half: self.half,
            activation: d.epilogue.activation,
            alpha: d.epilogue.alpha.map(T::from_f64),
            ..TileCall::sums(0, 0, self.table)
        }
    }

    /// Elements `first..first + len` of a vector of the epilogue, if it is `wanted`: in place, or widened in scratch.
    unsafe fn vector(&self, number: usize, vector: *const u8, wanted: bool, first: usize, len: usize) -> *const T {
        match self.half {
            _ if !wanted => null(),
            None => vector.cast::<T>().wrapping_add(first),
            Some(half) => {
                let to = self.scratch.add(self.d.scratch_vectors + number * VECTOR);
                (half.widen)(vector.cast::<u16>().add(first), to, len);
                to
            }
        }
    }

    fn partial_stride(&self) -> usize {
        self.d.n.next_multiple_of(self.d.nr)
    }

    /// Where partial sum `(split, g, m, n)` is.
    fn partial_at(&self, split: usize, g: usize, m: usize, n: usize) -> usize {
        ((split * self.d.g + g) * self.d.m + m) * self.partial_stride() + n
    }

    /// One reduce tile is one row panel of one batch: splits are added in index order, then finished as a tile is.
    unsafe fn reduce(&self, begin: usize, end: usize) {
        let d = self.d;
        let panels = d.m.div_ceil(d.mr);
        for tile in begin..end {
            let (g, m) = (tile / panels, tile % panels * d.mr);
            let rows = d.mr.min(d.m - m);
            let len = rows * self.partial_stride();
            let sum = self.partials.add(self.partial_at(0, g, m, 0));
            for split in 1..d.k_splits {
                let term = self.partials.add(self.partial_at(split, g, m, 0));
                for i in 0..len {
                    *sum.add(i) = (*sum.add(i)).add(*term.add(i));
                }
            }
            for n in (0..d.n).step_by(d.nr) {
                let mut call = self.call(g, m, n);
                call.partial = sum.add(n);
                call.partial_stride = self.partial_stride();
                call.load = true;
                self.run(&call, n, rows);
            }
        }
    }
}
