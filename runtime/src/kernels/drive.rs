#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "the C entry points; their contract is stated once in `kernels.rs`"
)]
//! The entry points: macro tiles, the reduction of k splits, and packing ahead of time.

use std::ops::Range;
use std::ptr::null;

use super::abi::{Ahead, Arguments, Descriptor, GROUP, Operand, PackCall, PackFn, Panel, Table, TileCall};
use super::half::Half;
use super::shared::{Claim, Flags};
use super::simd::Real;
use super::spec::Element;

/// Elements that a block takes of a vector of the epilogue, at most: the largest width any shape has.
pub(super) const VECTOR: usize = 256;

/// Empties the panels that tiles share. One tile, to be run before all others.
///
/// # Safety
/// See the module's documentation, "Contract of the entry points".
pub unsafe extern "C" fn contract_begin(descriptor: *const Descriptor, arguments: *const Arguments, _: u64, _: u64) {
    let (d, a) = (&*descriptor, &*arguments);
    Flags::of(d, a.partials).clear();
}

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

/// The first element of an operand that lies along the sum.
unsafe fn along_sum<T>(op: &Operand, tensor: *const u8, g: usize) -> *const T {
    advanced::<T>(op, tensor, g).wrapping_offset(*op.free as isize + *op.k as isize)
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
                PackCall {
                    operand: op,
                    from: advanced(op, from, g),
                    panel,
                    valid,
                    stride: if rows { valid } else { d.panel_shape(start).1 },
                    k0,
                    k1,
                    to: to.add(k0 * padded + start * (k1 - k0)),
                }
                .within_tables(|part| packer(table::<T>(d), op)(part));
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
    /// Column panels that tiles share, and which of them are there.
    shared: *mut T,
    flags: Flags,
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
            shared: a.partials.wrapping_add(d.shared_panels).cast(),
            flags: Flags::of(d, a.partials),
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
        let (rows, columns) = (d.tile_rows(m_tile), d.tile_columns(n_tile));
        let (k_begin, k_end) = (split * d.k_chunk, d.k.min((split + 1) * d.k_chunk));
        let panels = columns.len().div_ceil(d.nr);
        let first = d.first_panel(m_tile, panels);
        // Column panels go around, so that the last one is followed by the first of the next k block.
        let panel = |number: usize| columns.start + (first + number) % panels * d.nr;
        let mut count = 0;
        for k0 in blocks(k_begin, k_end, d) {
            count += 1;
            let k1 = block_end(k0, k_end, d);
            let row_panels = self.row_panels(g, rows.clone(), k0, k1, held);
            for number in 0..panels {
                let n = panel(number);
                let column_panel = self.column_panel(g, n, k0, k1);
                let next_columns = if number + 1 < panels {
                    self.columns_ahead(g, panel(number + 1), k0, k1)
                } else if k1 < k_end {
                    self.columns_ahead(g, panel(0), k1, block_end(k1, k_end, d))
                } else {
                    self.columns_ahead(g, columns.end, k_begin, block_end(k_begin, k_end, d))
                };
                let (partial, stride) = if d.k_splits > 1 {
                    (self.partials.add(self.partial_at(split, g, rows.start, n)), self.partial_stride())
                } else {
                    // Each block by itself: rows as far apart as the tile is wide would meet in few sets of a cache.
                    let before = (n - columns.start) / d.nr * d.mc;
                    (self.scratch.add(d.scratch_partial + before * d.nr), d.nr)
                };
                let mut call = self.call(n);
                call.k = k1 - k0;
                call.b = column_panel;
                call.partial_stride = stride;
                call.load = k0 > k_begin;
                call.last = k1 == k_end && d.k_splits == 1;
                // From row to row: of the operand, or of rows that are packed one by one.
                let row = if d.rows_step > 0 { d.rows_step } else { k1 - k0 };
                call.a_row = if d.rows_step > 0 || d.inner { row } else { 0 };
                let nothing = call.ahead[1];
                for m in rows.clone().step_by(d.mr) {
                    let at = m - rows.start;
                    self.take_rows(&mut call, g, m, n);
                    call.a = row_panels.add(at * row);
                    if d.rows.packed && number == 0 {
                        call.ahead[0] = Ahead { at: call.a.wrapping_add(d.mr * (k1 - k0)), step: d.mr };
                    }
                    // Each of the first row panels asks for one line of each step.
                    let line = at / d.mr * (64 / size_of::<T>());
                    call.ahead[1] = match next_columns {
                        Some(next) if line < d.nr => Ahead { at: next.at.wrapping_add(line), step: next.step },
                        _ => nothing,
                    };
                    call.partial = partial.wrapping_add(at * stride);
                    self.run(&call, n, rows.end - m);
                }
            }
        }
        count == 1
    }

    unsafe fn run(&self, call: &TileCall<T>, n: usize, rows_left: usize) {
        let shape = &self.table.shapes[self.d.panel_shape(n).0];
        let blocks = if self.d.rows_step > 0 && !self.d.inner { shape.in_place } else { shape.rows };
        (blocks[rows_left.min(self.d.mr) - 1])(call);
    }

    /// Packs (or finds) the row panels of one k block.
    unsafe fn row_panels(&self, g: usize, rows: Range<usize>, k0: usize, k1: usize, held: bool) -> *const T {
        let op = &self.d.rows;
        if op.packed {
            let copy = *op.packed_batch.add(g) as usize;
            let rows_of = self.rows.cast::<T>();
            return rows_of.add(copy * op.free_len * self.d.k + k0 * op.free_len + rows.start * (k1 - k0));
        }
        if self.d.rows_step > 0 {
            return along_sum::<T>(op, self.rows, g).wrapping_add(rows.start * self.d.rows_step + k0);
        }
        if !held {
            for m in rows.clone().step_by(op.width) {
                let valid = op.width.min(rows.end - m);
                PackCall {
                    operand: op,
                    from: advanced(op, self.rows, g),
                    panel: m / op.width,
                    valid,
                    stride: valid,
                    k0,
                    k1,
                    to: self.scratch.add((m - rows.start) * (k1 - k0)),
                }
                .within_tables(|part| packer(self.table, op)(part));
            }
        }
        self.scratch
    }

    /// Finds the column panel that starts at `n`, or packs it.
    unsafe fn column_panel(&self, g: usize, n: usize, k0: usize, k1: usize) -> Panel<T> {
        if self.d.inner {
            let step = self.d.columns_step;
            return Panel { at: along_sum::<T>(&self.d.columns, self.columns, g).wrapping_add(n * step + k0), step };
        }
        if self.d.columns_in_place
            && let Some(at) = self.columns_in_place(g, n, k0)
        {
            return Panel { at, step: self.d.columns_step };
        }
        Panel { at: self.packed_columns(g, n, k0, k1), step: self.d.panel_shape(n).1 }
    }

    /// Where the column panel that starts at `n` lies in the tensor, if all of it is one run.
    unsafe fn columns_in_place(&self, g: usize, n: usize, k0: usize) -> Option<*const T> {
        let op = &self.d.columns;
        let width = self.d.panel_shape(n).1;
        let ((across, free), (along, k)) = (op.free_period.split(n), op.k_period.split(k0));
        let groups = op.group_start.add(free / op.width * op.groups_per_panel);
        let first = op.segments.wrapping_add(*groups as usize);
        let one_each = (0..width.div_ceil(GROUP)).all(|group| *groups.add(group + 1) == *groups + group as u32 + 1);
        let is_run = one_each
            && (0..width.div_ceil(GROUP)).all(|group| {
                let run = *first.add(group);
                let follows = run.offset == (*first).offset + (group * GROUP) as i32;
                follows && run.step == 1 && run.len as usize == GROUP.min(width - group * GROUP)
            });
        let moved = *op.batch.add(g) as isize + across + along + *op.k.add(k) as isize;
        is_run.then(|| self.columns.cast::<T>().wrapping_offset(moved + (*first).start()))
    }

    /// Packs (or finds) the packed column panel that starts at `n`.
    unsafe fn packed_columns(&self, g: usize, n: usize, k0: usize, k1: usize) -> *const T {
        let d = self.d;
        if d.columns.packed {
            return self.columns.cast::<T>().wrapping_add(self.panel_at(g, n, k0, k1));
        }
        let own = self.scratch.add(d.scratch_columns);
        if !d.columns_shared {
            self.pack_columns(g, n, k0, k1, own);
            return own;
        }
        let shared = self.shared.wrapping_add(self.panel_at(g, n, k0, k1));
        let number = d.shared_panel(*d.columns.packed_batch.add(g) as usize, n, k0);
        match self.flags.claim(number) {
            Claim::Ready => shared,
            Claim::Mine => {
                self.pack_columns(g, n, k0, k1, shared);
                self.flags.publish(number);
                shared
            }
            Claim::Elsewhere => {
                self.pack_columns(g, n, k0, k1, own);
                own
            }
        }
    }

    unsafe fn pack_columns(&self, g: usize, n: usize, k0: usize, k1: usize, to: *mut T) {
        let op = &self.d.columns;
        PackCall {
            operand: op,
            from: advanced(op, self.columns, g),
            panel: n / op.width,
            valid: op.width.min(op.free_len - n),
            stride: self.d.panel_shape(n).1,
            k0,
            k1,
            to,
        }
        .within_tables(|part| packer(self.table, op)(part));
    }

    /// Elements before the panel that starts at `n`, where all are packed. It may be past the last one.
    unsafe fn panel_at(&self, g: usize, n: usize, k0: usize, k1: usize) -> usize {
        let op = &self.d.columns;
        let padded = packed_len(op, false);
        *op.packed_batch.add(g) as usize * padded * self.d.k + k0 * padded + n * (k1 - k0)
    }

    /// What the panel that starts at `n` will be read from: itself if it is packed, else its run of the tensor.
    unsafe fn columns_ahead(&self, g: usize, n: usize, k0: usize, k1: usize) -> Option<Ahead<T>> {
        let d = self.d;
        let op = &d.columns;
        if d.inner {
            return None;
        }
        if op.packed {
            let at = self.columns.cast::<T>().wrapping_add(self.panel_at(g, n, k0, k1));
            return Some(Ahead { at, step: d.nr });
        }
        if n >= d.n {
            return None;
        }
        if d.columns_shared && self.flags.is_ready(d.shared_panel(*op.packed_batch.add(g) as usize, n, k0)) {
            return Some(Ahead { at: self.shared.wrapping_add(self.panel_at(g, n, k0, k1)), step: d.nr });
        }
        if d.columns_step == 0 {
            return None;
        }
        let ((across, free), (along, k)) = (op.free_period.split(n), op.k_period.split(k0));
        let run = *op.segments.add(*op.group_start.add(free / op.width * op.groups_per_panel) as usize);
        let moved = *op.batch.add(g) as isize + across + along;
        let from = self.columns.cast::<T>().wrapping_offset(moved + *op.k.add(k) as isize + run.start());
        Some(Ahead { at: from, step: d.columns_step })
    }

    /// A call for the blocks of the column panel at `n`, with everything but operands and what [`Run::take_rows`] adds.
    unsafe fn call(&self, n: usize) -> TileCall<T> {
        let d = self.d;
        let columns = d.nr.min(d.n - n);
        let (_, column) = d.n_period.split(n);
        let [low, high] = d.epilogue.alpha;
        TileCall {
            last: true,
            group_start: d.out_group_start.add(column / d.nr * d.nr.div_ceil(GROUP)),
            segments: d.out_segments,
            columns,
            bias_n: self.vector(1, self.bias, d.epilogue.bias == 2, n, columns),
            scale_n: self.vector(3, self.scale, d.epilogue.scale == 2, n, columns),
            half: self.half,
            activation: d.epilogue.activation,
            alpha: [T::from_f64(low), T::from_f64(high)],
            ..TileCall::sums(0, 0, self.table)
        }
    }

    /// Makes a call for the column panel at `n` one for the block at `(m, n)`. Short sums notice whatever is done for each
    /// block: a call built anew took 7 % of the time at 16 steps.
    #[inline(always)]
    unsafe fn take_rows(&self, call: &mut TileCall<T>, g: usize, m: usize, n: usize) {
        let d = self.d;
        let bytes = if self.half.is_some() { size_of::<u16>() } else { size_of::<T>() } as isize;
        let rows = d.mr.min(d.m - m);
        let ((down, row), (across, _)) = (d.m_period.split(m), d.n_period.split(n));
        let distance = (*d.out_batch.add(g) as isize + down + across) * bytes;
        call.rows = d.out_m.add(row);
        call.out = self.out.wrapping_offset(distance).cast();
        if !self.residual.is_null() {
            call.residual = self.residual.wrapping_offset(distance).cast();
        }
        call.bias_m = self.vector(0, self.bias, d.epilogue.bias == 1, m, rows);
        call.scale_m = self.vector(2, self.scale, d.epilogue.scale == 1, m, rows);
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
                let mut call = self.call(n);
                self.take_rows(&mut call, g, m, n);
                call.partial = sum.add(n);
                call.partial_stride = self.partial_stride();
                call.load = true;
                self.run(&call, n, rows);
            }
        }
    }
}
