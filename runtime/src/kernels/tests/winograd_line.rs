//! Convolutions of one dimension, with taps apart too.

use super::super::{
    AffineRead, ContractSpec, Kernels, WinogradError, WinogradGradientPlan, WinogradPlan, WinogradTile,
};
use super::cases::dim;
use super::run::levels;
use super::winograd::{Data, error};
use super::winograd_gradient::gradient;

/// A 1-D convolution, all three directions; loops as `Conv`'s without rows.
#[derive(Clone, Copy, Debug)]
struct Line {
    batch: usize,
    channels: usize,
    outputs: usize,
    length: usize,
    taps: usize,
    pad: usize,
    dilation: usize,
}

impl Line {
    fn out(&self) -> usize {
        self.length + 2 * self.pad - (self.taps - 1) * self.dilation
    }

    /// `[batch, channels, length]` by the loops of its three dimensions.
    fn values(loops: [&[(usize, i64)]; 3], offset: i64, [batch, channels, length]: [usize; 3]) -> AffineRead {
        let [n, c, x] = loops;
        let dims = vec![dim(n, 0, batch, channels * length), dim(c, 0, channels, length), dim(x, offset, length, 1)];
        AffineRead { dims }
    }

    /// `y[n, o, x] = sum of w[o, c, j] * x[n, c, x + j d - p]`; loops 1 | o | n x | c j.
    fn forward(&self) -> ContractSpec {
        let (b, c, o, d, p) = (self.batch, self.channels, self.outputs, self.dilation as i64, self.pad as i64);
        let out = self.out();
        ContractSpec {
            batch: vec![1],
            m: vec![o],
            n: vec![b, out],
            k: vec![c, self.taps],
            left: Line::values([&[(1, 1)], &[(4, 1)], &[(5, 1)]], 0, [o, c, self.taps]),
            right: Line::values([&[(2, 1)], &[(4, 1)], &[(3, 1), (5, d)]], -p, [b, c, self.length]),
            out_strides: vec![0, out as i64, (o * out) as i64, 1],
            ..ContractSpec::default()
        }
    }

    /// `dx[n, c, x] = sum of w[o, c, j] * dy[n, o, x + p - j d]`; loops 1 | c | n x | o j.
    fn backward_data(&self) -> ContractSpec {
        let (b, c, o, d, p) = (self.batch, self.channels, self.outputs, self.dilation as i64, self.pad as i64);
        ContractSpec {
            batch: vec![1],
            m: vec![c],
            n: vec![b, self.length],
            k: vec![o, self.taps],
            left: Line::values([&[(4, 1)], &[(1, 1)], &[(5, 1)]], 0, [o, c, self.taps]),
            right: Line::values([&[(2, 1)], &[(4, 1)], &[(3, 1), (5, -d)]], p, [b, o, self.out()]),
            out_strides: vec![0, self.length as i64, (c * self.length) as i64, 1],
            ..ContractSpec::default()
        }
    }

    /// `dw[o, c, j] = sum of dy[n, o, x] * x[n, c, x + j d - p]`; loops 1 | o | c j | n x.
    fn backward_weights(&self) -> ContractSpec {
        let (b, c, o, d, p) = (self.batch, self.channels, self.outputs, self.dilation as i64, self.pad as i64);
        ContractSpec {
            batch: vec![1],
            m: vec![o],
            n: vec![c, self.taps],
            k: vec![b, self.out()],
            left: Line::values([&[(4, 1)], &[(1, 1)], &[(5, 1)]], 0, [b, o, self.out()]),
            right: Line::values([&[(4, 1)], &[(2, 1)], &[(5, 1), (3, d)]], -p, [b, c, self.length]),
            out_strides: vec![0, (c * self.taps) as i64, self.taps as i64, 1],
            ..ContractSpec::default()
        }
    }

    /// The tile that there is for its taps.
    fn tile(&self) -> WinogradTile {
        if self.taps == 3 { WinogradTile::Four } else { WinogradTile::Two }
    }
}

fn line(batch: usize, channels: usize, outputs: usize, length: usize, pad: usize) -> Line {
    Line { batch, channels, outputs, length, taps: 3, pad, dilation: 1 }
}

fn forward(data: &Data, spec: &ContractSpec, tile: WinogradTile, kernels: &Kernels) -> Vec<f32> {
    data.planned(spec, &WinogradPlan::new(spec, tile, kernels).unwrap())
}

fn check(line: Line) {
    type Run = fn(&Data, &ContractSpec, WinogradTile, &Kernels) -> Vec<f32>;
    let directions: [(ContractSpec, Run); 3] =
        [(line.forward(), forward), (line.backward_data(), forward), (line.backward_weights(), gradient)];
    for (spec, run) in directions {
        let data = Data::new(&spec);
        let exact = data.exact(&spec);
        for kernels in levels() {
            let found = error(&run(&data, &spec, line.tile(), kernels), &exact);
            assert!(found < 1e-5, "{} {line:?} {spec:?}: error {found}", kernels.level);
        }
    }
}

#[test]
fn lines_of_any_length() {
    for (batch, channels, outputs, length, pad) in
        [(1, 1, 1, 3, 0), (1, 1, 1, 1, 1), (2, 3, 5, 7, 1), (3, 5, 15, 9, 2), (2, 17, 33, 130, 1), (5, 40, 7, 34, 0)]
    {
        check(line(batch, channels, outputs, length, pad));
        check(Line { taps: 5, pad: pad + 1, ..line(batch, channels, outputs, length, pad) });
    }
}

#[test]
fn taps_apart() {
    for dilation in [2, 3, 4, 8, 20] {
        let apart = |batch, channels, outputs, rows, pad| Line {
            length: rows * dilation,
            pad: pad * dilation,
            dilation,
            ..line(batch, channels, outputs, 0, 0)
        };
        check(apart(1, 1, 1, 3, 0));
        check(apart(2, 17, 33, 9, 1));
        check(apart(3, 4, 20, 14, 2));
        check(Line { taps: 5, ..apart(2, 3, 18, 7, 2) });
    }
}

/// Half of the products, or three fifths, less what rounds: the plan says what it replaces.
#[test]
fn a_line_has_the_algorithm_of_its_taps() {
    let kernels = levels()[0];
    let name = |line: &Line| WinogradPlan::new(&line.forward(), line.tile(), kernels).unwrap().kernel().to_owned();
    let plain = line(2, 8, 8, 32, 1);
    let apart = Line { dilation: 4, pad: 4, ..plain };
    assert!(name(&plain).starts_with("winograd-f4x3-row-"), "{}", name(&plain));
    assert!(name(&apart).starts_with("winograd-f4x3-column-"), "{}", name(&apart));
    assert!(name(&Line { taps: 5, pad: 2, ..plain }).starts_with("winograd-f2x5-row-"));
    let plan = WinogradGradientPlan::new(&apart.backward_weights(), apart.tile(), kernels).unwrap();
    assert!(plan.kernel().starts_with("winograd-f4x3-column-grad-"), "{}", plan.kernel());
}

#[test]
fn what_is_no_whole_number_of_rows_is_summed_directly() {
    let kernels = levels()[0];
    let fits = Line { dilation: 4, pad: 4, ..line(2, 8, 8, 32, 0) };
    let refused = |line: Line| {
        let specs = [line.forward(), line.backward_data()];
        specs.iter().all(|spec| WinogradPlan::new(spec, line.tile(), kernels).is_err())
            && WinogradGradientPlan::new(&line.backward_weights(), line.tile(), kernels).is_err()
    };
    assert!(!refused(fits));
    assert!(refused(Line { length: 33, ..fits }));
    assert!(refused(Line { pad: 3, ..fits }));
    for taps in [1, 2, 4, 7] {
        let line = Line { taps, dilation: 1, pad: 3, ..fits };
        let plan = WinogradPlan::new(&line.forward(), WinogradTile::Four, kernels);
        assert!(matches!(plan, Err(WinogradError::Taps | WinogradError::Form)), "{taps}");
    }
}
