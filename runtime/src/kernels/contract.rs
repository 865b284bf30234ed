#![allow(
    unsafe_code,
    reason = "the descriptor holds pointers into tables that the plan owns and never changes; `run` calls entry points"
)]
//! From affine reads to a compiled contraction: the safe builder of [`Descriptor`]s.

use super::abi::{Arguments, Descriptor, EpilogueCode, GROUP, Operand, Table};
use super::apart::apart;
use super::choice::{self, ContractChoice, Extents, SumOrder, turned};
use super::drive::{VECTOR, contract_begin, contract_reduce, contract_tiles, pack_operand};
use super::estimate::Estimate;
use super::gather::{GatherTables, OutTables, offsets_of};
use super::half::Half;
use super::shared::Flags;
use super::source::Source;
use super::spec::{Along, ContractError, ContractSpec, Element, Epilogue, Packed, Side};
use super::tiling::Tiling;
use super::work::{Block, Work};
use super::{Kernels, simd::Real};

/// A compiled contraction: descriptor, its tables, and the sizes its caller must provide.
#[derive(Debug)]
pub struct ContractPlan {
    descriptor: Box<Descriptor>,
    tiling: Tiling,
    kernel: String,
    packed: Packed,
    /// Of the sums.
    element_bytes: usize,
    out_bytes: usize,
    terms_per_step: usize,
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
        let operands = (spec.operand(Side::Left), spec.operand(Side::Right));
        match (spec.element, operands, spec.output()) {
            (Element::F64, (Element::F64, Element::F64), Element::F64) => {
                Self::build(&Work::new(spec, kernels.f64, None)?, spec, kernels.f64, None, choice)
            }
            (Element::I32, (left, right), Element::I32) => {
                let (table, swapped) = kernels.integers(left, right).ok_or(ContractError::WrongElement)?;
                Self::build(&Work::new(spec, table, swapped)?, spec, table, None, choice)
            }
            (Element::F32, (left, right), out) => {
                let table = kernels.floats(left, right, false).ok_or(ContractError::WrongElement)?;
                let apart = apart(spec, table);
                let spec = apart.as_ref().unwrap_or(spec);
                let half = match out {
                    Element::F32 => None,
                    Element::Bf16 => Some(&kernels.half[0]),
                    Element::F16 => Some(&kernels.half[1]),
                    _ => return Err(ContractError::WrongElement),
                };
                let work = Work::new(spec, table, None)?;
                if let Some(rounded) = kernels.floats(left, right, true).filter(|_| spec.rounds_operands) {
                    let other = Work::new(spec, rounded, None)?;
                    if other.cheapest.cycles < work.cheapest.cycles {
                        return Self::build(&other, spec, rounded, half, choice);
                    }
                }
                Self::build(&work, spec, table, half, choice)
            }
            _ => Err(ContractError::WrongElement),
        }
    }

    fn build<T: Real>(
        work: &Work,
        spec: &ContractSpec,
        table: &'static Table<T>,
        half: Option<&'static Half<f32>>,
        wanted: Option<&ContractChoice>,
    ) -> Result<Self, ContractError> {
        let element_bytes = size_of::<T>();
        let Work { sizes, steps, ref blocks, cheapest, .. } = *work;
        let wanted_block = wanted.and_then(|choice| blocks.iter().find(|block| choice::is_of(table, block, choice)));
        let block = wanted_block.copied().unwrap_or(cheapest);
        let Block { swapped, shape, last, mr, in_place, inner, .. } = block;
        let sides = if swapped { [1, 0] } else { [0, 1] };
        let [rows, columns] = sides.map(|side| &work.operands[side]);
        let [out_rows, out_columns] = sides.map(|side| &work.out[side]);
        let (g, m, n, k) = (sizes[0], out_rows.len, out_columns.len, steps);
        let batch_strides = &spec.out_strides[..spec.batch.len()];

        let nr = table.shapes[shape].nr;
        let mut tables = Tables {
            // Rows that run along the sum are packed one by one.
            rows: GatherTables::new(&rows.read, &rows.dims, if inner { 1 } else { mr }, rows.native)?,
            columns: GatherTables::new(&columns.read, &columns.dims, nr, columns.native)?,
            out: OutTables::new(
                offsets_of(&spec.batch, batch_strides)?,
                spec.out_offset,
                (out_rows, mr),
                (out_columns, nr),
            )?,
        };
        let by_operand = |rows: bool, columns: bool| {
            let (left, right) = if swapped { (columns, rows) } else { (rows, columns) };
            Packed { left, right }
        };
        let may_pack = match spec.shares_panels {
            true => by_operand(tables.rows.is_dense(&rows.read), tables.columns.is_dense(&columns.read)),
            false => Packed::default(),
        };
        let (left, right) = if swapped { (n, m) } else { (m, n) };
        let extents = Extents { g, left, right, k, packed: spec.packed, may_pack };
        let by_estimate = |block: &Block| {
            let (choice, tiling) = extents.estimate(block, table.shapes[block.shape].nr);
            (choice, tiling, extents.with(block, choice.ahead))
        };
        let order = |block: &Block, tiling: &Tiling| {
            SumOrder::new(table, if block.swapped { (right, left) } else { (left, right) }, block, tiling)
        };
        let estimated = by_estimate(&cheapest);
        let of_choice = wanted
            .filter(|_| wanted_block.is_some())
            .and_then(|choice| Some((*choice, extents.cut(&block, choice)?, extents.with(&block, choice.ahead))));
        // Of a wish that cannot be had the block is left, and the cost model cuts that.
        let (choice, tiling, ahead) =
            of_choice.unwrap_or_else(|| if wanted_block.is_some() { by_estimate(&block) } else { estimated });
        let decision = Decision {
            choice,
            order: order(&block, &tiling),
            estimated: order(&cheapest, &estimated.1),
            extents,
            blocks: blocks.clone(),
        };
        let (rows_ahead, columns_shared) = turned(ahead, swapped);
        let (rows_packed, columns_packed) = (spec.packed.side(rows.side) | rows_ahead, spec.packed.side(columns.side));
        tables.rows.packed = rows_packed;
        tables.columns.packed = columns_packed;
        let rows_step = rows.along_sum.filter(|_| block.rows_in_place && !rows_packed).unwrap_or(0);
        let columns_in_place = in_place && !columns_packed && !columns_shared && !tables.columns.lanes_along_k;

        let align = |elements: usize| elements.next_multiple_of(64 / element_bytes);
        let row_block = if rows_packed || rows_step > 0 { 0 } else { tiling.mc.min(m) * tiling.kc };
        let column_block = if columns_packed || inner { 0 } else { nr * tiling.kc };
        let keeps_partial = tiling.k_splits == 1 && tiling.kc < k;
        let partial = if keeps_partial { tiling.mc * tiling.nc } else { 0 };
        let scratch_columns = align(row_block);
        let scratch_partial = scratch_columns + align(column_block);
        let scratch_vectors = scratch_partial + align(partial);
        let vectors = if half.is_some() { 4 * VECTOR } else { 0 };
        let sums = if tiling.k_splits == 1 { 0 } else { tiling.k_splits * g * m * n.next_multiple_of(nr) };
        let mut descriptor = Box::new(Descriptor {
            sums: spec.element,
            half: half.map_or(std::ptr::null(), std::ptr::from_ref),
            swapped,
            g,
            m,
            n,
            k,
            terms: sizes[3],
            mr,
            nr,
            mc: tiling.mc,
            nc: tiling.nc,
            kc: tiling.kc,
            k_chunk: tiling.k_chunk,
            m_tiles: tiling.m_tiles,
            n_tiles: tiling.n_tiles,
            k_splits: tiling.k_splits,
            rows: tables.rows.operand(rows),
            columns: tables.columns.operand(columns),
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
            scratch_vectors,
            columns_shared,
            shared_flags: align(sums) * element_bytes,
            shared_panels: 0,
            columns_step: match (columns.in_place, columns.along_sum) {
                (_, Some(step)) if inner => step,
                (Some(lies), _) if columns_in_place => lies.step,
                _ if columns.native => tables.columns.step_of_runs(),
                _ => 0,
            },
            columns_in_place,
            vectors: table.shapes[shape].vectors,
            inner,
            rows_step,
        });
        let flags = if columns_shared { descriptor.shared_count(tables.columns.packed_copies()) } else { 0 };
        descriptor.shared_panels = descriptor.shared_flags + Flags::bytes(flags);
        Ok(Self {
            descriptor,
            tiling,
            kernel: format!("{}-{mr}x{nr}{}", table.name, if inner { "-inner" } else { "" }),
            packed: by_operand(rows_packed, columns_packed),
            element_bytes,
            out_bytes: spec.output().bytes(),
            terms_per_step: table.terms,
            scratch_elements: scratch_vectors + vectors,
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
    /// `rounding` may change.
    pub fn alternatives(&self, rounding: bool) -> Vec<ContractChoice> {
        let Decision { choice, order, extents, blocks, .. } = &self.decision;
        let order = (!rounding).then_some(*order);
        let table = self.descriptor.table;
        // SAFETY: the table is the one that the plan was built with, of the sums' type.
        unsafe {
            match self.descriptor.sums {
                Element::F64 => choice::alternatives(&*table.cast::<Table<f64>>(), extents, blocks, choice, order),
                Element::I32 => choice::alternatives(&*table.cast::<Table<i32>>(), extents, blocks, choice, order),
                _ => choice::alternatives(&*table.cast::<Table<f32>>(), extents, blocks, choice, order),
            }
        }
    }

    /// Elements of the output.
    pub fn outputs(&self) -> u64 {
        let d = &self.descriptor;
        (d.g * d.m * d.n) as u64
    }

    /// Multiply-adds of all tiles together.
    pub fn multiply_adds(&self) -> u64 {
        self.outputs() * self.descriptor.terms as u64
    }

    /// Bytes of one element of the sums.
    pub fn element_bytes(&self) -> usize {
        self.element_bytes
    }

    /// Terms of the sum that are multiplied by one instruction for each lane: what a peak in `f32` is multiplied by.
    pub fn terms_per_step(&self) -> usize {
        self.terms_per_step
    }

    /// Bytes of the output.
    pub fn output_bytes(&self) -> u64 {
        self.outputs() * self.out_bytes as u64
    }

    /// Bytes that an operand contributes if none is read twice: rows or columns by terms of the sum, in each batch.
    pub fn read_bytes(&self, side: Side) -> u64 {
        let d = &self.descriptor;
        let rows = (side == Side::Left) != d.swapped;
        let (free, operand) = if rows { (d.m, &d.rows) } else { (d.n, &d.columns) };
        (d.g * free * operand.k_len * operand.element.bytes()) as u64
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
        let (mut rows, mut columns) = (self.tables.rows.describe(), self.tables.columns.describe());
        let d = &self.descriptor;
        if d.columns_in_place {
            columns = format!("nothing of steps {} apart", d.columns_step);
        }
        if d.inner {
            columns = format!("nothing of columns {} apart", d.columns_step);
        }
        if d.rows_step > 0 {
            rows = format!("nothing of rows {} apart", d.rows_step);
        }
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
    fn operand(&self, source: &Source) -> Operand {
        Operand {
            batch: self.batch.as_ptr(),
            free: self.free.as_ptr(),
            k: self.k.as_ptr(),
            free_len: self.free_len,
            free_period: self.free_period,
            k_period: self.k_period,
            k_len: self.k_len,
            element: source.element,
            native: source.native,
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
