#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "the C entry points; their contract is stated once in `kernels.rs`"
)]
//! The entry points: operands (where tiles share them), products with the transform of their sums, partial sums.

use super::super::super::abi::{Arguments, GROUP, Panel, Table, TileCall};
use super::cut::Cut;
use super::shape::GradientShape;
use super::transform::{GradientTransforms, StripsCall, SumCall, Taps, TapsCall, Weights};

/// A compiled gradient. Opaque to callers, who hold a pointer to it; see [`super::WinogradGradientPlan`].
pub struct WinogradGradientDescriptor {
    pub(super) shape: GradientShape,
    pub(super) cut: Cut,
    pub(super) table: &'static Table<f32>,
    pub(super) transforms: &'static GradientTransforms,
}

impl std::fmt::Debug for WinogradGradientDescriptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fields = (&self.shape, &self.cut);
        let mut debug = f.debug_struct("WinogradGradientDescriptor");
        debug.field("shape", fields.0).field("cut", fields.1).finish_non_exhaustive()
    }
}

/// Transforms `begin..end` of `WinogradGradientPlan::input_tiles`: sixteen outputs or channels of a chunk each.
///
/// # Safety
/// See the documentation of `kernels`, "Contract of the entry points".
pub unsafe extern "C" fn winograd_gradient_input(
    descriptor: *const WinogradGradientDescriptor,
    arguments: *const Arguments,
    begin: u64,
    end: u64,
) {
    let run = Run { d: &*descriptor, a: &*arguments };
    let cut = &run.d.cut;
    let units = cut.output_groups + cut.channel_groups;
    for tile in begin as usize..end as usize {
        let (chunk, unit) = (tile / units, tile % units);
        let to = run.shared().wrapping_add(chunk * cut.chunk_len());
        let strips = cut.strips_of(chunk);
        match unit.checked_sub(cut.output_groups) {
            None => run.dy(strips, unit, to, unit),
            Some(group) => run.x(strips, group, to, group, cut.channel_groups),
        }
    }
}

/// Computes tiles `begin..end` of `WinogradGradientPlan::tiles`, after the operands.
///
/// # Safety
/// See the documentation of `kernels`, "Contract of the entry points".
pub unsafe extern "C" fn winograd_gradient_tiles(
    descriptor: *const WinogradGradientDescriptor,
    arguments: *const Arguments,
    begin: u64,
    end: u64,
) {
    let run = Run { d: &*descriptor, a: &*arguments };
    for tile in begin as usize..end as usize {
        run.tile(tile);
    }
}

/// Adds the partial gradients of outputs `16 begin..16 end`, after all tiles.
///
/// # Safety
/// See the documentation of `kernels`, "Contract of the entry points".
pub unsafe extern "C" fn winograd_gradient_sum(
    descriptor: *const WinogradGradientDescriptor,
    arguments: *const Arguments,
    begin: u64,
    end: u64,
) {
    let run = Run { d: &*descriptor, a: &*arguments };
    let (shape, cut) = (&run.d.shape, &run.d.cut);
    for group in begin as usize..end as usize {
        let first = group * GROUP;
        (run.d.transforms.sum[cut.algorithm as usize])(&SumCall {
            from: run.partial(0, first),
            splits: cut.splits,
            partial: cut.partial_len(),
            groups: cut.channel_groups,
            outputs: GROUP.min(shape.outputs - first),
            to: run.weights(first, 0),
        });
    }
}

struct Run<'a> {
    d: &'a WinogradGradientDescriptor,
    a: &'a Arguments,
}

impl Run<'_> {
    /// Transformed operands of all chunks.
    fn shared(&self) -> *mut f32 {
        self.a.partials.cast()
    }

    /// A partial gradient from an output on.
    fn partial(&self, split: usize, output: usize) -> *mut f32 {
        let cut = &self.d.cut;
        let at = cut.shared_len() + split * cut.partial_len() + output * cut.channel_groups * cut.taps_len();
        self.a.partials.cast::<f32>().wrapping_add(at)
    }

    /// The gradient from an output and a channel on.
    fn weights(&self, output: usize, channel: usize) -> Weights {
        let (shape, strides) = (&self.d.shape, self.d.shape.dw);
        let at = strides.base + output as isize * strides.output + channel as isize * strides.channel;
        let to = self.a.out.cast::<f32>().wrapping_offset(at);
        Weights { to, strides, channels: shape.channels - channel, transpose: self.d.table.transpose }
    }

    /// Scratch of a worker: pixels as lanes, then operands, then sums.
    fn stage(&self) -> *mut f32 {
        self.a.scratch.cast()
    }

    /// Transforms sixteen outputs, to group `at` of the chunk at `chunk`.
    unsafe fn dy(&self, strips: (usize, usize), group: usize, chunk: *mut f32, at: usize) {
        let (shape, cut) = (&self.d.shape, &self.d.cut);
        let tiles = (strips.1 - strips.0) * cut.columns;
        let from: *const f32 = if shape.x_left { self.a.right.cast() } else { self.a.left.cast() };
        (self.d.transforms.gradient[cut.algorithm as usize])(&StripsCall {
            from: from.wrapping_offset((group * GROUP) as isize * shape.dy.channel),
            strides: shape.dy,
            size: shape.out_size,
            origin: (0, 0),
            channels: GROUP.min(shape.outputs - group * GROUP),
            strips,
            rows: cut.rows,
            columns: cut.columns,
            band: cut.band,
            stage: self.stage(),
            to: chunk.wrapping_add(at * GROUP * tiles),
            position: cut.dy_position,
            tile: cut.mr,
            // A vector of L lanes is L / mr panels.
            vector: tiles * self.d.lanes(),
            panel: tiles * cut.mr,
        });
    }

    /// Transforms sixteen channels, to group `at` of the `groups` of the chunk at `chunk`.
    unsafe fn x(&self, strips: (usize, usize), group: usize, chunk: *mut f32, at: usize, groups: usize) {
        let (shape, cut) = (&self.d.shape, &self.d.cut);
        let tiles = (strips.1 - strips.0) * cut.columns;
        let from: *const f32 = if shape.x_left { self.a.left.cast() } else { self.a.right.cast() };
        let lane = at * GROUP;
        let panel = lane / cut.nr * cut.nr;
        let width = cut.nr.min(groups * GROUP - panel);
        let vector = if width < GROUP { tiles * width } else { self.d.lanes() };
        (self.d.transforms.image[cut.algorithm as usize])(&StripsCall {
            from: from.wrapping_offset((group * GROUP) as isize * shape.x.channel),
            strides: shape.x,
            size: shape.size,
            origin: shape.origin,
            channels: GROUP.min(shape.channels - group * GROUP),
            strips,
            rows: cut.rows,
            columns: cut.columns,
            band: cut.band,
            stage: self.stage(),
            to: chunk.wrapping_add(cut.dy_len() + panel * tiles + lane - panel),
            position: cut.x_position,
            tile: width,
            vector,
            panel: 0,
        });
    }

    unsafe fn tile(&self, tile: usize) {
        let (shape, cut) = (&self.d.shape, &self.d.cut);
        let parts = cut.parts();
        let (split, part) = (tile / (parts.0 * parts.1), tile % (parts.0 * parts.1));
        let outputs = Range::of(part / parts.1, cut.output_part, cut.output_groups);
        let channels = Range::of(part % parts.1, cut.channel_part, cut.channel_groups);
        let own = self.stage().wrapping_add(cut.stage_len);
        let sums = own.wrapping_add(if cut.shared { 0 } else { cut.chunk_len() });
        let first = split * cut.split_chunks;
        for chunk in first..cut.chunks.min(first + cut.split_chunks) {
            let strips = cut.strips_of(chunk);
            let tiles = (strips.1 - strips.0) * cut.columns;
            let (dy, x) = if cut.shared {
                let at = self.shared().wrapping_add(chunk * cut.chunk_len());
                let x = at.wrapping_add(cut.dy_len() + channels.first * GROUP * tiles);
                (at.wrapping_add(outputs.first * GROUP * tiles), x)
            } else {
                for group in 0..outputs.count {
                    self.dy(strips, outputs.first + group, own, group);
                }
                for group in 0..channels.count {
                    self.x(strips, channels.first + group, own, group, channels.count);
                }
                (own, own.wrapping_add(cut.dy_len()))
            };
            self.multiply(tiles, (outputs.count * GROUP, dy), (channels.count * GROUP, x), chunk > first, sums);
        }
        let (output, channel) = (outputs.first * GROUP, channels.first * GROUP);
        let to = if cut.splits > 1 {
            let at = self.partial(split, output).wrapping_add(channels.first * cut.taps_len());
            Taps::Partial(at, cut.channel_groups * cut.taps_len())
        } else {
            Taps::Weights(self.weights(output, channel))
        };
        (self.d.transforms.taps[cut.algorithm as usize])(&TapsCall {
            from: sums,
            position: cut.sums_position,
            lanes: channels.count * GROUP,
            outputs: (outputs.count * GROUP).min(shape.outputs - output),
            to,
        });
    }

    /// Adds the products of a chunk, position by position, to `sums` if it `continues` them.
    unsafe fn multiply(
        &self,
        tiles: usize,
        (rows, dy): (usize, *const f32),
        (lanes, x): (usize, *const f32),
        continues: bool,
        sums: *mut f32,
    ) {
        let cut = &self.d.cut;
        let mut call = TileCall::sums(tiles, lanes, self.d.table);
        call.load = continues;
        for position in 0..cut.algorithm.positions() {
            for lane in (0..lanes).step_by(cut.nr) {
                let shape = if lanes - lane < cut.nr { cut.narrow } else { cut.wide };
                let kernel = self.d.table.shapes[shape].rows[cut.mr - 1];
                let at = x.wrapping_add(position * cut.x_position + lane * tiles);
                call.b = Panel { at, step: self.d.table.shapes[shape].nr };
                for row in (0..rows).step_by(cut.mr) {
                    call.a = dy.wrapping_add(position * cut.dy_position + row * tiles);
                    call.partial = sums.wrapping_add(position * cut.sums_position + row * lanes + lane);
                    kernel(&call);
                }
            }
        }
    }
}

impl WinogradGradientDescriptor {
    /// Lanes of a register.
    fn lanes(&self) -> usize {
        self.cut.nr / self.table.shapes[self.cut.wide].vectors
    }
}

/// Groups of sixteen.
struct Range {
    first: usize,
    count: usize,
}

impl Range {
    fn of(part: usize, size: usize, all: usize) -> Range {
        let first = part * size;
        Range { first, count: size.min(all - first) }
    }
}
