//! Memory over a long training: resident bytes after 10,000 steps as after 1,000. On Linux, which says how many there are.
//!
//! The training runs in a process of its own, for the other tests of this binary allocate as they please.

use std::process::Command;

use indexmap::IndexMap;
use kiln_rt::kernels::Level;
use kiln_rt::train::{History, Reporter, StepEvent};
use kiln_rt::{Tensor, data::Dataset};
use kiln_tests::training::Training;

/// Set in the process that trains: bytes that each step leaks.
const LEAK: &str = "KILN_TEST_LEAK";
const TEST: &str = "steady::ten_thousand_steps_take_no_more_memory_than_one_thousand";

const STEPS: u64 = 10_000;
const EVERY: u64 = 1_000;
/// Bytes that may come and go: lists of the order of examples, pages that the allocator keeps.
const TOLERATED: u64 = 256 << 10;
/// 64 bytes a step are 576,000 over 9,000 steps, more than twice what is tolerated.
const LEAKED: usize = 64;

#[test]
fn ten_thousand_steps_take_no_more_memory_than_one_thousand() {
    if let Ok(leak) = std::env::var(LEAK) {
        return train(leak.parse().unwrap());
    }
    let kept = growth(0);
    assert!(kept <= TOLERATED, "{kept} bytes more after {STEPS} steps than after {EVERY}");
    let leaked = growth(LEAKED);
    assert!(leaked > TOLERATED, "{LEAKED} bytes a step that leak show as {leaked} bytes");
}

/// Bytes that a training with a leak takes more at any later time than after its first thousand steps.
fn growth(leak: usize) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args([TEST, "--exact", "--nocapture"]).env(LEAK, leak.to_string()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let samples: Vec<u64> =
        text.lines().filter_map(|line| line.strip_prefix("resident ")).map(|bytes| bytes.parse().unwrap()).collect();
    assert_eq!(samples.len() as u64, STEPS / EVERY, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    samples.iter().max().unwrap() - samples[0]
}

/// Two dense layers with Adam, 8 values in and 1 out.
const SCRIPT: &str = "\
model @m(%x: f32[batch, 8], %target: f32[batch, 1]) {
  %h = dense %x {units = 8, activation = tanh}
  %y = dense %h {units = 1}
  predict %y
  loss mse %y, %target
}
train {data = \"none.npz\", batch = 2, epochs = 100, test_every = 0, optimizer = adam {rate = 0.001}}
";
/// As many that a training has a few epochs.
const EXAMPLES: usize = 5_000;

fn train(leak: usize) {
    let training = Training { name: "steady.kiln".into(), text: SCRIPT.into(), level: Level::Portable, threads: 2 };
    let values = |count: usize| (0..EXAMPLES * count).map(|i| (i % 17) as f32 / 17.0).collect::<Vec<f32>>();
    let arrays = IndexMap::from([
        ("x".to_owned(), Tensor::from_vec([EXAMPLES, 8], values(8)).unwrap()),
        ("target".to_owned(), Tensor::from_vec([EXAMPLES, 1], values(1)).unwrap()),
    ]);
    let data = Dataset::new("none.npz", arrays, &training.inputs("step0", 2).unwrap()).unwrap();
    training.train_reported(&data, None, STEPS, &mut Samples { step: 0, leak }).unwrap();
}

/// Prints what is resident every thousand steps.
struct Samples {
    step: u64,
    leak: usize,
}

impl Reporter for Samples {
    fn step(&mut self, _: StepEvent<'_>) {
        self.step += 1;
        if self.leak > 0 {
            // Written to, so that its pages are there.
            std::mem::forget(vec![1u8; self.leak]);
        }
        if self.step.is_multiple_of(EVERY) {
            println!("\nresident {}", resident_bytes());
        }
    }

    fn epoch(&mut self, _: u64, _: u64, _: &History) {}

    fn notice(&mut self, _: &str) {}
}

/// From the page tables where the system shows them: the counter in `status` may be wrong by some pages per processor.
fn resident_bytes() -> u64 {
    let line = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned)
    };
    let kilobytes = line("/proc/self/smaps_rollup", "Rss:").or_else(|| line("/proc/self/status", "VmRSS:")).unwrap();
    kilobytes.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}
