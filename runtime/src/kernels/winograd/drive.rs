#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "the C entry points; their contract is stated once in `kernels.rs`"
)]
//! The entry points: weights, input (where blocks share it), and tiles.

use std::ptr::null;

use super::super::abi::{Ahead, Arguments, GROUP, Panel, Table, TileCall};
use super::blocks::{Blocks, MOST_GROUPS};
use super::geometry::Geometry;
use super::shape::Shape;
use super::transform::{InputCall, OutputCall, Plane, Transforms, WeightsCall};

/// A compiled Winograd convolution. Opaque to callers, who hold a pointer to it; see [`super::WinogradPlan`].
pub struct WinogradDescriptor {
    pub(super) shape: Shape,
    pub(super) blocks: Blocks,
    pub(super) table: &'static Table<f32>,
    pub(super) transforms: &'static Transforms,
    pub(super) activation: (u32, [f64; 2]),
}

impl std::fmt::Debug for WinogradDescriptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fields = (&self.shape, &self.blocks);
        f.debug_struct("WinogradDescriptor").field("shape", fields.0).field("blocks", fields.1).finish_non_exhaustive()
    }
}

/// Transforms row panels `begin..end` of the weights, `WinogradPlan::pack_tiles` of them, ahead of the tiles. `_side` is
/// there because `pack_operand` has it.
///
/// # Safety
/// The plan behind `descriptor` is alive; `from` holds the weights, `to` `WinogradPlan::packed_bytes` bytes.
pub unsafe extern "C" fn winograd_pack(
    descriptor: *const WinogradDescriptor,
    _side: u64,
    from: *const u8,
    to: *mut u8,
    begin: u64,
    end: u64,
) {
    let d = &*descriptor;
    let (s, b) = (&d.shape, &d.blocks);
    for panel in begin as usize..end as usize {
        let first = panel * b.mr;
        let from = from.cast::<f32>().wrapping_offset(s.weights.base + first as isize * s.weights.output);
        (d.transforms.weights[b.algorithm as usize])(&WeightsCall {
            from,
            strides: s.weights,
            rows: b.mr.min(s.outputs - first),
            channels: s.channels,
            to: to.cast::<f32>().add(first * s.channels),
            position: b.weights_position,
            far: b.weights_are_far(),
        });
    }
}

/// Transforms the input for all blocks: `begin..end` of `WinogradPlan::input_tiles`.
///
/// # Safety
/// See the documentation of `kernels`, "Contract of the entry points".
pub unsafe extern "C" fn winograd_input(
    descriptor: *const WinogradDescriptor,
    arguments: *const Arguments,
    begin: u64,
    end: u64,
) {
    let run = Run { d: &*descriptor, a: &*arguments };
    let b = &run.d.blocks;
    for tile in begin as usize..end as usize {
        let (block, chunk) = (tile / b.channel_chunks, tile % b.channel_chunks);
        let channels = run.d.shape.channels;
        let first = chunk * b.channel_chunk;
        let mut groups = [Geometry::EMPTY; MOST_GROUPS];
        let groups = run.groups(block, &mut groups);
        run.input(groups, first, channels.min(first + b.channel_chunk), run.shared_input(block));
    }
}

/// Computes tiles `begin..end` of `WinogradPlan::tiles`, after the weights and the input.
///
/// # Safety
/// See the documentation of `kernels`, "Contract of the entry points".
pub unsafe extern "C" fn winograd_tiles(
    descriptor: *const WinogradDescriptor,
    arguments: *const Arguments,
    begin: u64,
    end: u64,
) {
    let run = Run { d: &*descriptor, a: &*arguments };
    for tile in begin as usize..end as usize {
        run.tile(tile);
    }
}

struct Run<'a> {
    d: &'a WinogradDescriptor,
    a: &'a Arguments,
}

impl Run<'_> {
    /// The transformed weights, `[position][panel][channel][rows]`.
    fn weights(&self) -> *const f32 {
        if self.d.shape.weights_left { self.a.left.cast() } else { self.a.right.cast() }
    }

    fn image(&self) -> *const f32 {
        if self.d.shape.weights_left { self.a.right.cast() } else { self.a.left.cast() }
    }

    /// The transformed input of a block that all items share.
    fn shared_input(&self, block: usize) -> *mut f32 {
        self.a.partials.cast::<f32>().wrapping_add(block * self.d.blocks.input_len)
    }

    /// Geometry of a block's groups.
    fn groups<'g>(&self, block: usize, groups: &'g mut [Geometry; MOST_GROUPS]) -> &'g [Geometry] {
        let b = &self.d.blocks;
        let first = block * b.groups;
        let count = b.groups.min(b.all_groups - first);
        for (i, group) in groups.iter_mut().take(count).enumerate() {
            group.set(&self.d.shape, b.algorithm, (first + i) * GROUP);
        }
        &groups[..count]
    }

    unsafe fn input(&self, groups: &[Geometry], begin: usize, end: usize, to: *mut f32) {
        let (s, b) = (&self.d.shape, &self.d.blocks);
        (self.d.transforms.input[b.algorithm as usize])(&InputCall {
            from: self.image(),
            channel: s.image.channel,
            row: s.image.row,
            begin,
            end,
            groups,
            to,
            position: b.input_position,
            channels: s.channels,
            nr: b.nr,
        });
    }

    unsafe fn tile(&self, tile: usize) {
        let (s, b) = (&self.d.shape, &self.d.blocks);
        let (block, part) = (tile / b.output_parts, tile % b.output_parts);
        let mut groups = [Geometry::EMPTY; MOST_GROUPS];
        let groups = self.groups(block, &mut groups);
        let scratch: *mut f32 = self.a.scratch.cast();
        let (input, sums) = if b.shared_input {
            (self.shared_input(block).cast_const(), scratch)
        } else {
            self.input(groups, 0, s.channels, scratch);
            (scratch.cast_const(), scratch.add(b.input_len))
        };
        let begin = part * b.output_part;
        let end = s.outputs.min(begin + b.output_part);
        for first in (begin..end).step_by(b.output_block) {
            let last = end.min(first + b.output_block);
            self.multiply(groups.len() * GROUP, first, last, input, sums);
            self.output(groups, first, last, sums);
        }
    }

    /// Sums over channels for outputs `first..last`, position by position.
    unsafe fn multiply(&self, lanes: usize, first: usize, last: usize, input: *const f32, sums: *mut f32) {
        let (s, b) = (&self.d.shape, &self.d.blocks);
        let weights = self.weights();
        let mut call = TileCall::sums(s.channels, lanes, self.d.table);
        for position in 0..b.algorithm.positions() {
            for lane in (0..lanes).step_by(b.nr) {
                let shape = if lanes - lane < b.nr { b.narrow } else { b.wide };
                let kernels = self.d.table.shapes[shape].rows;
                let at = input.add(position * b.input_position + lane * s.channels);
                call.b = Panel { at, step: self.d.table.shapes[shape].nr };
                for row in (first..last).step_by(b.mr) {
                    call.a = weights.add(position * b.weights_position + row * s.channels);
                    call.ahead[0] = if lane == 0 {
                        let next = if row + b.mr < last { (position, row + b.mr) } else { (position + 1, first) };
                        Ahead {
                            at: weights.wrapping_add(next.0 * b.weights_position + next.1 * s.channels),
                            step: b.mr,
                        }
                    } else {
                        Ahead::nothing(call.a)
                    };
                    call.partial = sums.add(position * b.sums_position + (row - first) * lanes + lane);
                    kernels[b.mr.min(last - row) - 1](&call);
                }
            }
        }
    }

    unsafe fn output(&self, groups: &[Geometry], first: usize, last: usize, sums: *const f32) {
        let (s, b) = (&self.d.shape, &self.d.blocks);
        let offset = first as isize * s.out.channel;
        let vector = |has: bool, at: *const u8| {
            if has { at.cast::<f32>().wrapping_add(first) } else { null() }
        };
        let residual: *const f32 = self.a.residual.cast();
        (self.d.transforms.output[b.algorithm as usize])(&OutputCall {
            from: sums,
            position: b.sums_position,
            rows: last - first,
            groups,
            plane: Plane {
                out: self.a.out.cast::<f32>().wrapping_offset(offset),
                residual: if s.residual { residual.wrapping_offset(offset) } else { null() },
                row: s.out.row,
                activation: self.d.activation.0,
                alpha: self.d.activation.1.map(|bound| bound as f32),
                activate: self.d.table.activate,
            },
            channel: s.out.channel,
            bias: vector(s.bias, self.a.bias),
            scale: vector(s.scale, self.a.scale),
        });
    }
}
