//! The kernels of a run: time, speed, distance from the roofline, and why it is large.

use std::fmt::Write as _;

use kiln::compile::Compiled;
use kiln::roofline::cause::{Cause, Measured, cause};
use kiln::roofline::{Roofline, rooflines, sources};
use kiln_rt::profile::{LaunchTimes, Profile};
use serde_json::{Value, json};

use super::ceilings::Roofs;

/// Below this part of its roofline a kernel is named, with the cause ...
const LOW: f64 = 0.25;
/// ... if it takes more than this part of the time.
const WORTH_NAMING: f64 = 0.01;

/// Kernels with less of the time than this are summed up, if there are more than so many kernels.
const WORTH_SHOWING: f64 = 0.005;
const MOST_SMALL: usize = 20;

/// One launch of a run.
pub(super) struct Kernel {
    graph: String,
    name: String,
    source: Option<String>,
    nanoseconds: f64,
    /// Part of the time of all kernels.
    share: f64,
    flops: u64,
    bytes: u64,
    tiles: u64,
    roofline: Roofline,
    /// Why it is slow, if it is.
    cause: Option<Cause>,
}

/// The kernels of the graphs of a run, with their profiles.
pub(super) fn kernels(graphs: &[(&str, &Compiled, Profile)], roofs: &Roofs) -> Vec<Kernel> {
    let times = graphs.iter().flat_map(|(.., profile)| profile.launches.iter().map(LaunchTimes::median));
    let total = times.map(|time| time.as_secs_f64()).sum::<f64>().max(1e-12) * 1e9;
    let mut kernels = Vec::new();
    for (graph, compiled, profile) in graphs {
        let rooflines = rooflines(compiled, &roofs.ceilings, roofs.caches);
        let launches = profile.launches.iter().zip(rooflines).zip(sources(compiled));
        kernels.extend(launches.map(|((launch, roofline), source)| {
            let nanoseconds = launch.median().as_nanos().max(1) as f64;
            let measured = Measured {
                nanoseconds,
                tiles: launch.tiles,
                roofline,
                threads: roofs.ceilings.threads,
                fork_join: roofs.fork_join_us * 1e3,
            };
            let share = nanoseconds / total;
            let slow = roofline.nanoseconds < LOW * nanoseconds && share > WORTH_NAMING;
            Kernel {
                graph: (*graph).to_owned(),
                name: launch.name.clone(),
                source: launch.source.clone(),
                nanoseconds,
                share,
                flops: launch.flops,
                bytes: launch.bytes,
                tiles: launch.tiles,
                roofline,
                cause: slow.then(|| cause(source, &measured)),
            }
        }));
    }
    kernels
}

impl Kernel {
    fn gflops(&self) -> f64 {
        self.flops as f64 / self.nanoseconds
    }

    fn gigabytes(&self) -> f64 {
        self.bytes as f64 / self.nanoseconds
    }

    /// Percent of the roofline that it reaches.
    fn percent(&self) -> f64 {
        100.0 * self.roofline.nanoseconds / self.nanoseconds
    }

    pub(super) fn to_json(&self) -> Value {
        let cause = self.cause.as_ref().map(|cause| json!({ "code": cause.code, "text": cause.text }));
        json!({
            "graph": self.graph,
            "name": self.name,
            "source": self.source,
            "us": self.nanoseconds / 1e3,
            "share": self.share,
            "flops": self.flops,
            "bytes": self.bytes,
            "gflops": self.gflops(),
            "gb_s": self.gigabytes(),
            "tiles": self.tiles,
            "roofline_us": self.roofline.nanoseconds / 1e3,
            "roofline_percent": self.percent(),
            "bound": self.roofline.bound.name(),
            "cause": cause,
        })
    }
}

/// Kernels by time, and those that are far from their rooflines.
pub(super) fn text(kernels: &[Kernel], roofs: &Roofs) -> String {
    let mut sorted: Vec<&Kernel> = kernels.iter().collect();
    sorted.sort_by(|a, b| b.nanoseconds.total_cmp(&a.nanoseconds));
    let several = kernels.iter().any(|kernel| kernel.graph != kernels[0].graph);
    let mut text = format!(
        "{:>10} {:>6} {:>9} {:>8} {:>6} {:<7} {:>6}  kernel\n",
        "us", "%", "GFLOP/s", "GB/s", "roof %", "bound", "tiles"
    );
    let shown = sorted.iter().filter(|kernel| kernel.share >= WORTH_SHOWING).count().max(MOST_SMALL).min(sorted.len());
    // Writing to a String cannot fail.
    for kernel in &sorted[..shown] {
        let _ = writeln!(
            text,
            "{:>10.2} {:>6.1} {:>9.2} {:>8.2} {:>6.1} {:<7} {:>6}  {}",
            kernel.nanoseconds / 1e3,
            100.0 * kernel.share,
            kernel.gflops(),
            kernel.gigabytes(),
            kernel.percent(),
            kernel.roofline.bound.name(),
            kernel.tiles,
            kernel.title(several),
        );
    }
    let rest = &sorted[shown..];
    if !rest.is_empty() {
        let share: f64 = rest.iter().map(|kernel| kernel.share).sum();
        let _ = writeln!(text, "{:>17.1}  ... {} more, which --json lists", 100.0 * share, rest.len());
    }
    let roof = &roofs.ceilings;
    let _ = writeln!(
        text,
        "\nroofs of {} {}: {:.0} GFLOP/s; {:.0} GB/s from L2, {:.0} from L3, {:.1} from DRAM; fork and join {:.2} us",
        roof.threads,
        if roof.threads == 1 { "thread" } else { "threads" },
        roof.gflops,
        roof.l2.most(),
        roof.l3.most(),
        roof.dram.most(),
        roofs.fork_join_us,
    );
    if sorted.iter().take(shown).any(|kernel| kernel.percent() > 100.0) {
        text.push_str(
            "above 100 %: fewer multiplications than are counted (Winograd), or data nearer than is estimated\n",
        );
    }
    let slow: Vec<_> = sorted.into_iter().filter_map(|kernel| Some((kernel, kernel.cause.as_ref()?))).collect();
    if !slow.is_empty() {
        let _ = writeln!(text, "\nbelow {:.0} % of their rooflines:", 100.0 * LOW);
    }
    for (kernel, cause) in slow {
        let (share, percent) = (100.0 * kernel.share, kernel.percent());
        let title = kernel.title(several);
        let _ =
            writeln!(text, "  {title}\n    {percent:.0} %, {share:.1} % of the time [{}] {}", cause.code, cause.text);
    }
    text
}

impl Kernel {
    /// Its name, with its graph if there are several, and its script line.
    fn title(&self, several: bool) -> String {
        let graph = if several { format!("@{}.", self.graph) } else { String::new() };
        let source = self.source.as_ref().map(|source| format!("  {source}")).unwrap_or_default();
        format!("{graph}{}{source}", self.name)
    }
}
