//! Outputs of whole planes in row-major order, as many as a vector has, whatever row they are in.
//!
//! Vectors along a row are mostly empty where rows are short, and windows further apart than two elements are no pair of
//! loads. Here, lane after lane is the next output, across the ends of rows and, for windows without weights, of planes. A
//! vector's windows then meet one row of taps within some consecutive elements, which are loaded as vectors; each tap is
//! a permutation of those, worked out ahead, or, where lanes read neighbours, a load of its own.

use super::axis::Axis;

/// The vectors of some planes.
#[derive(Debug)]
pub(crate) struct Flat {
    /// Planes of a group: vectors repeat from group to group.
    pub(super) planes: usize,
    pub(super) vectors: Vec<FlatVector>,
    /// `[patterns][rows of the window]`
    pub(super) rows: Vec<FlatRow>,
    /// Masks of a pattern in the order that they are used: for each row those of its loads, then for each tap that of the
    /// lanes inside and those of the lanes that a pair of loads gives, from the second pair on.
    pub(super) masks: Vec<u16>,
    /// Lanes of a pattern in the order that they are used: for each tap and pair of loads, the element that a lane takes.
    pub(super) picks: Vec<i32>,
    /// About how long a group takes, in cycles.
    cost: f64,
}

/// One vector of outputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlatVector {
    /// Element of the group's input that the first lane meets with its first tap; it may lie outside.
    pub(super) x: isize,
    /// First element of the group's output.
    pub(super) out: usize,
    /// Lanes that exist.
    pub(super) lanes: u16,
    pub(super) rows: usize,
    pub(super) masks: usize,
    pub(super) picks: usize,
}

/// What one row of the window's taps loads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FlatRow {
    /// First element, from the vector's `x`.
    pub(super) at: isize,
    /// Vectors; none if each tap is a load, one element after that of the tap before.
    pub(super) loads: usize,
    /// Whether tap `j` of lane `i` is element `i * loads + j`, and all are there: nothing is masked or picked.
    pub(super) even: bool,
}

/// Lanes in tables at most.
const MOST_PICKS: usize = 1 << 16;
/// Of these, what stays in the first-level cache beside the planes.
const NEAR_PICKS: usize = 16 * 1024 / 4;

/// Distances of windows whose taps are vectors of even and odd elements, and of those the even and odd ones.
const EVEN_LOADS: [usize; 2] = [2, 4];

/// Whether tap `j` of lane `i` is element `low + i * step + j`, of all lanes and at most `step` taps.
fn evenly_apart(taps: &[Vec<Option<i64>>], low: i64, step: usize, lanes: usize) -> bool {
    let is_at = |j: usize, lane: usize| taps[j].get(lane) == Some(&Some(low + (lane * step + j) as i64));
    taps.len() <= step && (0..taps.len()).all(|j| (0..lanes).all(|lane| is_at(j, lane)))
}

/// One pattern of a vector, relative to its `x`.
#[derive(PartialEq)]
struct Pattern {
    rows: Vec<FlatRow>,
    masks: Vec<u16>,
    picks: Vec<i32>,
}

impl Flat {
    /// The vectors of groups of at most `most` planes, as few as leave little of a vector empty; `None` if their tables
    /// are too large.
    pub(super) fn new(rows: &Axis, columns: &Axis, lanes: usize, most: usize) -> Option<Self> {
        let outputs = rows.output * columns.output;
        let filled = |planes: usize| (planes * outputs) as f64 / ((planes * outputs).next_multiple_of(lanes)) as f64;
        let most = most.clamp(1, lanes);
        let best = (1..=most).map(filled).fold(0.0, f64::max);
        let planes = (1..=most).find(|&planes| filled(planes) >= best.min(0.9)).unwrap_or(1);
        let mut flat = Self { planes, vectors: vec![], rows: vec![], masks: vec![], picks: vec![], cost: 0.0 };
        let mut known: Vec<(Pattern, [usize; 3], f64)> = Vec::new();
        for out in (0..planes * outputs).step_by(lanes) {
            let count = lanes.min(planes * outputs - out);
            let origins: Vec<Origin> = (out..out + count).map(|output| Origin::of(output, rows, columns)).collect();
            let x = origins[0].plane * (rows.input * columns.input) as i64
                + origins[0].row * columns.input as i64
                + origins[0].column;
            let pattern = Pattern::of(&origins, x, rows, columns, lanes, planes);
            let at = match known.iter().position(|(other, ..)| *other == pattern) {
                Some(at) => at,
                None => {
                    let begin = [flat.rows.len(), flat.masks.len(), flat.picks.len()];
                    flat.rows.extend(&pattern.rows);
                    flat.masks.extend(&pattern.masks);
                    flat.picks.extend(&pattern.picks);
                    if flat.picks.len() > MOST_PICKS {
                        return None;
                    }
                    let cost = pattern.cost(columns.kernel);
                    known.push((pattern, begin, cost));
                    known.len() - 1
                }
            };
            let (_, [rows, masks, picks], cost) = known[at];
            flat.cost += cost;
            flat.vectors.push(FlatVector {
                x: x as isize,
                out,
                lanes: super::lanes::first_lanes(count, lanes),
                rows,
                masks,
                picks,
            });
        }
        Some(flat)
    }

    /// About how long a plane takes, in cycles.
    pub(super) fn cost(&self) -> f64 {
        let far = if self.picks.len() > NEAR_PICKS { 2.0 } else { 1.0 };
        far * self.cost / self.planes as f64
    }
}

/// Where the window of an output begins.
struct Origin {
    plane: i64,
    row: i64,
    column: i64,
}

impl Origin {
    fn of(output: usize, rows: &Axis, columns: &Axis) -> Self {
        let (line, x) = (output / columns.output, output % columns.output);
        let start = |axis: &Axis, at: usize| (at * axis.stride) as i64 + axis.offset;
        Self { plane: (line / rows.output) as i64, row: start(rows, line % rows.output), column: start(columns, x) }
    }

    /// The element, from the group's first, that tap `(i, j)` meets, if there is one.
    fn element(&self, i: usize, j: usize, rows: &Axis, columns: &Axis) -> Option<i64> {
        let (row, column) = (self.row + i as i64, self.column + j as i64);
        let (height, width) = (rows.input as i64, columns.input as i64);
        let inside = (0..height).contains(&row) && (0..width).contains(&column);
        inside.then_some((self.plane * height + row) * width + column)
    }
}

impl Pattern {
    fn of(origins: &[Origin], x: i64, rows: &Axis, columns: &Axis, lanes: usize, planes: usize) -> Self {
        let mut pattern = Self { rows: vec![], masks: vec![], picks: vec![] };
        let elements = (planes * rows.input * columns.input) as i64;
        for i in 0..rows.kernel {
            let taps: Vec<Vec<Option<i64>>> = (0..columns.kernel)
                .map(|j| origins.iter().map(|origin| origin.element(i, j, rows, columns)).collect())
                .collect();
            pattern.row(&taps, x, elements, lanes);
        }
        pattern
    }

    /// Adds a row of taps, of which each has the elements that its lanes meet.
    fn row(&mut self, taps: &[Vec<Option<i64>>], x: i64, elements: i64, lanes: usize) {
        let all = || taps.iter().flatten().flatten().copied();
        let mask = |of: &dyn Fn(usize) -> bool| (0..lanes).filter(|&l| of(l)).fold(0, |bits, l| bits | 1u16 << l);
        // The element that lane 0 would meet with tap 0, if all lanes were neighbours.
        let neighbour = |j: usize, lane: usize| taps[j].get(lane)?.map(|e| e - j as i64 - lane as i64);
        let mut firsts = (0..taps.len()).flat_map(|j| (0..lanes).filter_map(move |lane| neighbour(j, lane)));
        let first = firsts.next().unwrap_or(x);
        if firsts.all(|other| other == first) {
            self.rows.push(FlatRow { at: (first - x) as isize, loads: 0, even: false });
            for tap in taps {
                self.masks.push(mask(&|lane| tap.get(lane).is_some_and(Option::is_some)));
            }
            return;
        }
        let (low, high) = (all().min().unwrap_or(x), all().max().unwrap_or(x));
        if let Some(loads) = EVEN_LOADS.into_iter().find(|&loads| evenly_apart(taps, low, loads, lanes)) {
            let at = (low - x) as isize;
            // The last tap of the last lane need not be the last element of the last vector.
            if low + (loads * lanes) as i64 <= elements {
                self.rows.push(FlatRow { at, loads, even: true });
                return;
            }
        }
        let pairs = ((high - low + 1) as usize).div_ceil(2 * lanes);
        self.rows.push(FlatRow { at: (low - x) as isize, loads: 2 * pairs, even: false });
        for load in 0..2 * pairs {
            let inside = |lane: usize| (low + (load * lanes + lane) as i64) < elements;
            self.masks.push(mask(&inside));
        }
        for tap in taps {
            let place = |lane: usize| tap.get(lane).copied().flatten().map(|element| (element - low) as usize);
            self.masks.push(mask(&|lane| place(lane).is_some()));
            for pair in 0..pairs {
                if pair > 0 {
                    self.masks.push(mask(&|lane| place(lane).is_some_and(|at| at / (2 * lanes) == pair)));
                }
                self.picks.extend((0..lanes).map(|lane| (place(lane).unwrap_or(0) % (2 * lanes)) as i32));
            }
        }
    }

    /// About how long it takes, in cycles: two loads in one, one permutation.
    fn cost(&self, taps: usize) -> f64 {
        let row = |row: &FlatRow| match row.loads {
            0 => 1.5 * taps as f64,
            loads if row.even => 2.0 * loads as f64,
            loads => 0.75 * loads as f64 + taps as f64 * (0.5 + 0.75 * loads as f64),
        };
        4.0 + self.rows.iter().map(row).sum::<f64>()
    }
}
