//! Random programs for the tests: buffers with aliases, and the accesses that a run would make.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use super::{Access, Buffer, Problem};

/// Xorshift64: small, and the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }
}

/// A problem and the accesses of its program.
pub(crate) struct Program {
    pub(crate) problem: Problem,
    pub(crate) trace: Vec<Access>,
}

/// A chain of `kernels` kernels. Each reads up to three earlier values and writes one, some in place of an operand that
/// nobody reads later; some have scratch, and some results are read through a view, of all or of their last bytes. Some
/// are written as one of two parts of a value, which is joined when both are there, and read afterwards.
pub(crate) fn random(kernels: usize, random: &mut Random) -> Program {
    let operands: Vec<Vec<usize>> = (0..kernels)
        .map(|step| (0..random.below(4)).filter(|_| step > 0).map(|_| random.below(step)).collect())
        .collect();
    let mut last_read: Vec<usize> = (0..kernels).collect();
    for (step, reads) in operands.iter().enumerate() {
        for &value in reads {
            last_read[value] = step;
        }
    }
    let mut builder = Builder::default();
    let joins = joins(kernels, random, &mut builder);
    // The buffer through which each value is read, and whether it is the value's own and not a view.
    let mut home: Vec<(usize, bool)> = Vec::new();
    for (step, reads) in operands.iter().enumerate() {
        for &value in reads {
            builder.trace.push(Access::read(step as u32, home[value].0));
        }
        if random.below(5) == 0 {
            let scratch = builder.buffer("scratch", 1 + random.below(400), step, step, None);
            builder.trace.push(Access::write(step as u32, scratch));
            builder.trace.push(Access::read(step as u32, scratch));
        }
        for join in joins.iter().filter(|join| join.reader == step) {
            builder.trace.push(Access::read(step as u32, join.whole));
        }
        let dying = reads.iter().find(|&&value| last_read[value] == step && home[value].1 && random.below(3) > 0);
        if let Some((join, at)) = joins.iter().find_map(|join| Some((join, join.at(step)?))) {
            // Until the join at least.
            let last = last_read[step].max(join.second());
            let part = builder.buffer("part", join.sizes[usize::from(at > 0)], step, last, None);
            builder.buffers[part] = builder.buffers[part].clone().part_of(join.whole, at);
            builder.trace.push(Access::write(step as u32, part));
            if step == join.second() {
                builder.trace.push(Access::join(step as u32, join.whole));
            }
            home.push((part, false));
            continue;
        }
        let target = dying.map(|&value| home[value].0);
        let size = target.map_or_else(|| random.below(1000), |target| builder.size(target));
        let result = builder.buffer("value", size, step, last_read[step], target);
        builder.trace.push(Access::write(step as u32, result));
        let viewed = last_read[step] > step && random.below(6) == 0;
        home.push(if viewed {
            let at = 64 * random.below(size / 64 + 1);
            let view = builder.buffer("view", size - at, step, last_read[step], None);
            builder.buffers[view] = builder.buffers[view].clone().part_of(result, at as u64);
            (view, false)
        } else {
            (result, true)
        });
    }
    Program { problem: Problem::new(builder.buffers).unwrap(), trace: builder.trace }
}

/// A value of two parts, which the kernels `first` and `first + 1` write, and `reader` reads.
struct Join {
    first: usize,
    reader: usize,
    whole: usize,
    sizes: [usize; 2],
}

impl Join {
    fn second(&self) -> usize {
        self.first + 1
    }

    /// Where what a kernel writes begins in the whole.
    fn at(&self, kernel: usize) -> Option<u64> {
        let starts = [0, self.sizes[0].next_multiple_of(64) as u64];
        [self.first, self.second()].iter().position(|&part| part == kernel).map(|part| starts[part])
    }
}

/// Some joins, each of kernels of its own.
fn joins(kernels: usize, random: &mut Random, builder: &mut Builder) -> Vec<Join> {
    let mut joins = Vec::new();
    let mut first = random.below(6);
    while first + 2 < kernels {
        let reader = first + 2 + random.below(kernels - first - 2);
        let sizes = [64 * (1 + random.below(8)), 1 + random.below(500)];
        let whole = builder.buffer("joined", sizes[0] + sizes[1], first + 1, reader, None);
        joins.push(Join { first, reader, whole, sizes });
        first += 2 + random.below(12);
    }
    joins
}

#[derive(Default)]
struct Builder {
    buffers: Vec<Buffer>,
    trace: Vec<Access>,
}

impl Builder {
    fn buffer(&mut self, kind: &str, size: usize, from: usize, to: usize, alias_of: Option<usize>) -> usize {
        let id = format!("{kind}{}", self.buffers.len());
        self.buffers.push(Buffer { alias_of, ..Buffer::new(id, size as u64, from as u32, to as u32 + 1) });
        self.buffers.len() - 1
    }

    fn size(&self, buffer: usize) -> usize {
        self.buffers[buffer].size as usize
    }
}
