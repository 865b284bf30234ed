//! Did-you-mean: the nearest known name.

/// What other frameworks call an op or a layer, where the letters are too far from ours to be guessed.
const ELSEWHERE: [(&str, &str); 24] = [
    ("affine", "dense"),
    ("average_pool", "avg_pool"),
    ("binary_cross_entropy", "bce_with_logits"),
    ("cat", "concat"),
    ("concatenate", "concat"),
    ("divide", "div"),
    ("einsum", "dot"),
    ("fc", "dense"),
    ("fully_connected", "dense"),
    ("global_average_pool", "global_avg_pool"),
    ("linear", "dense"),
    ("matmul", "dot"),
    ("mean", "reduce_mean"),
    ("mean_squared_error", "mse"),
    ("mse_loss", "mse"),
    ("multiply", "mul"),
    ("nll_loss", "cross_entropy"),
    ("permute", "transpose"),
    ("prod", "reduce_prod"),
    ("subtract", "sub"),
    ("sum", "reduce_sum"),
    ("swish", "silu"),
    ("view", "reshape"),
    ("where", "select"),
];

/// Help for an unknown op or layer: our name for what another framework calls so, else the nearest of `candidates`.
pub fn did_you_mean_op<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let known = ELSEWHERE.iter().find(|(name, _)| *name == given).map(|(_, ours)| format!("did you mean `{ours}`?"));
    known.or_else(|| did_you_mean(given, candidates))
}

/// Help that names the candidate nearest to `given`, if one is near: at most a third of its letters differ.
pub fn did_you_mean<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(given, candidates).map(|name| format!("did you mean `{name}`?"))
}

/// The candidate nearest to `given`; the first of equally near ones.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters: Vec<char> = given.chars().take(LONGEST + 1).collect();
    if letters.len() > LONGEST {
        return None;
    }
    let limit = (letters.len() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let bound = best.map_or(limit, |(distance, _)| distance.saturating_sub(1));
        if candidate.len().abs_diff(given.len()) > 4 * (bound + 1) {
            continue;
        }
        let other: Vec<char> = candidate.chars().collect();
        if other.len().abs_diff(letters.len()) > bound {
            continue;
        }
        let distance = edit_distance(&letters, &other);
        if distance <= bound && distance < letters.len() {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, name)| name)
}

/// Longer names get no advice: the distance costs their length squared.
const LONGEST: usize = 64;

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, &y) in b.iter().enumerate() {
            row[j + 1] = (above[j] + usize::from(x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_other_frameworks_lead_to_ops_and_layers() {
        for (name, ours) in ELSEWHERE {
            let exists = |name: &str| crate::op::entry(name).is_some() || crate::layer::entry(name).is_some();
            assert!(exists(ours) && !exists(name), "{name} {ours}");
        }
        assert_eq!(did_you_mean_op("sum", ["sub"]).as_deref(), Some("did you mean `reduce_sum`?"));
        assert_eq!(did_you_mean_op("conc", ["conv", "concat"]).as_deref(), Some("did you mean `conv`?"));
    }

    #[test]
    fn finds_swapped_and_missing_letters() {
        assert_eq!(nearest("rleu", ["elu", "relu", "gelu"]), Some("relu"));
        assert_eq!(nearest("sofmax", ["softmax", "max"]), Some("softmax"));
        assert_eq!(nearest("stride", ["strides", "padding"]), Some("strides"));
        assert_eq!(nearest("convolution", ["conv", "add"]), None);
    }

    #[test]
    fn distance_is_that_of_the_textbook() {
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        assert_eq!(edit_distance(&chars("kitten"), &chars("sitting")), 3);
        assert_eq!(edit_distance(&chars(""), &chars("abc")), 3);
    }
}
