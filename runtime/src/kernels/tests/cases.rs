//! Contractions as the compiler would describe them, and their meaning by loops.

use super::super::{Activation, AffineDim, AffineRead, ContractSpec, Element, Epilogue};

/// A 2-D convolution, all three directions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conv {
    pub(super) batch: usize,
    pub(super) groups: usize,
    /// Channels of one group.
    pub(super) channels: usize,
    /// Outputs of one group.
    pub(super) outputs: usize,
    pub(super) size: (usize, usize),
    pub(super) kernel: (usize, usize),
    pub(super) stride: usize,
    pub(super) pad: usize,
    pub(super) dilation: usize,
}

pub(super) fn dim(terms: &[(usize, i64)], offset: i64, extent: usize, stride: usize) -> AffineDim {
    let stride = stride as i64;
    AffineDim { terms: terms.to_vec(), offset, divisor: 1, extent, stride }
}

impl Conv {
    pub(super) fn out_size(&self) -> (usize, usize) {
        let one =
            |size: usize, kernel: usize| (size + 2 * self.pad - (kernel - 1) * self.dilation - 1) / self.stride + 1;
        (one(self.size.0, self.kernel.0), one(self.size.1, self.kernel.1))
    }

    pub(super) fn lens(&self) -> [usize; 3] {
        let out = self.out_size();
        let (c, o) = (self.groups * self.channels, self.groups * self.outputs);
        [
            self.batch * c * self.size.0 * self.size.1,
            o * self.channels * self.kernel.0 * self.kernel.1,
            self.batch * o * out.0 * out.1,
        ]
    }

    /// `y[n, g o, y, x] = sum of w[g o, c, i, j] * x[n, g c, y s + i d - p, x s + j d - p]`; loops g | o | n y x | c i j.
    pub(super) fn forward(&self) -> ContractSpec {
        let (s, d, p) = (self.stride as i64, self.dilation as i64, self.pad as i64);
        let (h, w) = self.size;
        let (oh, ow) = self.out_size();
        let (kh, kw) = self.kernel;
        let (c, o) = (self.channels, self.outputs);
        let x = AffineRead {
            dims: vec![
                dim(&[(2, 1)], 0, self.batch, self.groups * c * h * w),
                dim(&[(0, c as i64), (5, 1)], 0, self.groups * c, h * w),
                dim(&[(3, s), (6, d)], -p, h, w),
                dim(&[(4, s), (7, d)], -p, w, 1),
            ],
        };
        let weights = self.weights_read(&[(0, o as i64), (1, 1)], 5, 6, 7);
        let plane = (oh * ow) as i64;
        let image = self.groups as i64 * o as i64 * plane;
        ContractSpec {
            element: Element::F32,
            batch: vec![self.groups],
            m: vec![o],
            n: vec![self.batch, oh, ow],
            k: vec![c, kh, kw],
            left: weights,
            right: x,
            out_strides: vec![o as i64 * plane, plane, image, ow as i64, 1],
            ..ContractSpec::default()
        }
    }

    /// `dx[n, g c, h, w] = sum of w[g o, c, i, j] * dy[n, g o, (h + p - i d) / s, (w + p - j d) / s]`; loops
    /// g | c | n h w | o i j.
    pub(super) fn backward_data(&self) -> ContractSpec {
        let (d, p) = (self.dilation as i64, self.pad as i64);
        let (h, w) = self.size;
        let (oh, ow) = self.out_size();
        let (kh, kw) = self.kernel;
        let (c, o) = (self.channels, self.outputs);
        let weights = self.weights_read(&[(0, o as i64), (5, 1)], 1, 6, 7);
        let mut dy = AffineRead {
            dims: vec![
                dim(&[(2, 1)], 0, self.batch, self.groups * o * oh * ow),
                dim(&[(0, o as i64), (5, 1)], 0, self.groups * o, oh * ow),
                dim(&[(3, 1), (6, -d)], p, oh, ow),
                dim(&[(4, 1), (7, -d)], p, ow, 1),
            ],
        };
        dy.dims[2].divisor = self.stride as i64;
        dy.dims[3].divisor = self.stride as i64;
        let plane = (h * w) as i64;
        let image = self.groups as i64 * c as i64 * plane;
        ContractSpec {
            element: Element::F32,
            batch: vec![self.groups],
            m: vec![c],
            n: vec![self.batch, h, w],
            k: vec![o, kh, kw],
            left: weights,
            right: dy,
            out_strides: vec![c as i64 * plane, plane, image, w as i64, 1],
            ..ContractSpec::default()
        }
    }

    /// `dw[g o, c, i, j] = sum of dy[n, g o, y, x] * x[n, g c, y s + i d - p, x s + j d - p]`; loops
    /// g | o | c i j | n y x.
    pub(super) fn backward_weights(&self) -> ContractSpec {
        let (s, d, p) = (self.stride as i64, self.dilation as i64, self.pad as i64);
        let (h, w) = self.size;
        let (oh, ow) = self.out_size();
        let (kh, kw) = self.kernel;
        let (c, o) = (self.channels, self.outputs);
        let dy = AffineRead {
            dims: vec![
                dim(&[(5, 1)], 0, self.batch, self.groups * o * oh * ow),
                dim(&[(0, o as i64), (1, 1)], 0, self.groups * o, oh * ow),
                dim(&[(6, 1)], 0, oh, ow),
                dim(&[(7, 1)], 0, ow, 1),
            ],
        };
        let x = AffineRead {
            dims: vec![
                dim(&[(5, 1)], 0, self.batch, self.groups * c * h * w),
                dim(&[(0, c as i64), (2, 1)], 0, self.groups * c, h * w),
                dim(&[(6, s), (3, d)], -p, h, w),
                dim(&[(7, s), (4, d)], -p, w, 1),
            ],
        };
        let taps = (kh * kw) as i64;
        ContractSpec {
            element: Element::F32,
            batch: vec![self.groups],
            m: vec![o],
            n: vec![c, kh, kw],
            k: vec![self.batch, oh, ow],
            left: dy,
            right: x,
            out_strides: vec![o as i64 * c as i64 * taps, c as i64 * taps, taps, kw as i64, 1],
            ..ContractSpec::default()
        }
    }

    fn weights_read(&self, o: &[(usize, i64)], c: usize, i: usize, j: usize) -> AffineRead {
        let (kh, kw) = self.kernel;
        AffineRead {
            dims: vec![
                dim(o, 0, self.groups * self.outputs, self.channels * kh * kw),
                dim(&[(c, 1)], 0, self.channels, kh * kw),
                dim(&[(i, 1)], 0, kh, kw),
                dim(&[(j, 1)], 0, kw, 1),
            ],
        }
    }
}

/// `[b, m, k] x [b, k, n]`, each operand optionally stored transposed.
pub(super) fn dot(b: usize, m: usize, n: usize, k: usize, ta: bool, tb: bool) -> ContractSpec {
    let (am, ak) = if ta { (1, m) } else { (k, 1) };
    let (bk, bn) = if tb { (1, k) } else { (n, 1) };
    let left = vec![dim(&[(0, 1)], 0, b, m * k), dim(&[(1, 1)], 0, m, am), dim(&[(3, 1)], 0, k, ak)];
    let right = vec![dim(&[(0, 1)], 0, b, k * n), dim(&[(3, 1)], 0, k, bk), dim(&[(2, 1)], 0, n, bn)];
    ContractSpec {
        element: Element::F32,
        batch: vec![b],
        m: vec![m],
        n: vec![n],
        k: vec![k],
        left: AffineRead { dims: left },
        right: AffineRead { dims: right },
        out_strides: vec![(m * n) as i64, n as i64, 1],
        epilogue: Epilogue { activation: Activation::None, ..Epilogue::default() },
        ..ContractSpec::default()
    }
}

/// One more than the largest element offset of a read or an output.
pub(super) fn read_len(read: &AffineRead) -> usize {
    1 + read.dims.iter().map(|d| (d.extent - 1) * d.stride as usize).sum::<usize>()
}

pub(super) fn out_len(spec: &ContractSpec) -> usize {
    let extents = spec.batch.iter().chain(&spec.m).chain(&spec.n);
    1 + extents.zip(&spec.out_strides).map(|(e, s)| (e - 1) * *s as usize).sum::<usize>()
}

/// Where `read` finds its element at loop point `at`, if inside.
fn element(read: &AffineRead, at: &[usize]) -> Option<usize> {
    let mut offset = 0;
    for d in &read.dims {
        let sum = d.terms.iter().map(|(i, c)| at[*i] as i64 * c).sum::<i64>() + d.offset;
        if sum % d.divisor != 0 || !(0..d.extent as i64).contains(&(sum / d.divisor)) {
            return None;
        }
        offset += sum / d.divisor * d.stride;
    }
    Some(offset as usize)
}

fn for_each(extents: &[usize], mut body: impl FnMut(&[usize])) {
    let mut at = vec![0; extents.len()];
    let count: usize = extents.iter().product();
    for _ in 0..count {
        body(&at);
        for (i, extent) in at.iter_mut().zip(extents).rev() {
            *i += 1;
            if *i < *extent {
                break;
            }
            *i = 0;
        }
    }
}

/// One output: its offset, flat m and n, the sum, and the sum of magnitudes (the scale of rounding errors).
pub(super) struct Sum {
    pub(super) at: usize,
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) value: f64,
    pub(super) size: f64,
}

/// The meaning of the spec without its epilogue.
pub(super) fn naive(spec: &ContractSpec, left: &[f64], right: &[f64]) -> Vec<Sum> {
    let outer: Vec<usize> = [&spec.batch[..], &spec.m, &spec.n].concat();
    let [m_len, n_len] = [&spec.m, &spec.n].map(|e| e.iter().product::<usize>());
    let mut sums = Vec::new();
    let mut count = 0;
    for_each(&outer, |out| {
        let at = out.iter().zip(&spec.out_strides).map(|(i, s)| *i as i64 * s).sum::<i64>();
        let (mut value, mut size) = (0.0, 0.0);
        for_each(&spec.k, |k| {
            let point = [out, k].concat();
            if let (Some(l), Some(r)) = (element(&spec.left, &point), element(&spec.right, &point)) {
                value += left[l] * right[r];
                size += (left[l] * right[r]).abs();
            }
        });
        let (m, n) = (count / n_len % m_len, count % n_len);
        sums.push(Sum { at: at as usize, m, n, value, size });
        count += 1;
    });
    sums
}

/// Numbers in -1..1 with exact f32 values, different for each seed.
pub(super) fn numbers(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from((state >> 44) as u32) / f64::from(1u32 << 19) - 1.0
        })
        .collect()
}
