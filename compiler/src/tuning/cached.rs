//! Measured choices in the user's cache.
//!
//! An entry is one kernel on one processor. Choices that keep every bit hold for a number of threads, since few tiles are best for
//! one and many for several. Choices that change rounding hold for all, and lie in a folder of their own.

use std::io;
use std::sync::{Mutex, PoisonError};

use kiln_rt::cache::{Cache, Lookup};
use kiln_rt::machine::processor;

use super::{Choice, Measured, Rounding, Table, Tuned};

/// Folders within the cache.
const EXACT: &str = "tuned";
const ROUNDED: &str = "tuned-bits";

/// The choices of a cache for this processor and a number of threads.
#[derive(Debug)]
pub struct CachedChoices {
    exact: Cache,
    rounded: Cache,
    processor: String,
    threads: usize,
    rounding: Rounding,
    ignored: Mutex<Vec<String>>,
}

impl CachedChoices {
    /// Choices for `threads` threads; those that change rounding are read and written with [`Rounding::Tuned`] only.
    pub fn new(cache: &Cache, threads: usize, rounding: Rounding) -> CachedChoices {
        CachedChoices {
            exact: cache.within(EXACT),
            rounded: cache.within(ROUNDED),
            processor: processor(),
            threads,
            rounding,
            ignored: Mutex::default(),
        }
    }

    /// Whether anything was ever entered.
    pub fn is_there(&self) -> bool {
        let wanted = [Some(&self.exact), (self.rounding == Rounding::Tuned).then_some(&self.rounded)];
        wanted.into_iter().flatten().any(|cache| cache.folder().is_dir())
    }

    /// Enters what was measured: where only choices that keep bits are, or where the others are, after its rounding.
    ///
    /// # Errors
    /// The system's.
    pub fn put(&self, kernel: &str, tuned: &Tuned) -> io::Result<()> {
        let (cache, key) = self.place(kernel, tuned.rounding);
        cache.put(&key, to_text(tuned).as_bytes())
    }

    /// Where the entries of a rounding are.
    pub fn folder(&self, rounding: Rounding) -> &std::path::Path {
        match rounding {
            Rounding::Kept => self.exact.folder(),
            Rounding::Tuned => self.rounded.folder(),
        }
    }

    fn place(&self, kernel: &str, rounding: Rounding) -> (&Cache, String) {
        let (cache, threads) = match rounding {
            Rounding::Kept => (&self.exact, self.threads.to_string()),
            Rounding::Tuned => (&self.rounded, "any".to_owned()),
        };
        (cache, format!("processor {}\nthreads {threads}\nkernel {kernel}", self.processor))
    }

    fn look(&self, kernel: &str, rounding: Rounding) -> Option<Tuned> {
        let (cache, key) = self.place(kernel, rounding);
        let ignored = match cache.get(&key) {
            Lookup::Missing => return None,
            Lookup::Ignored(why) => why,
            Lookup::Found(bytes) => match std::str::from_utf8(&bytes).ok().and_then(|text| from_text(text, rounding)) {
                Some(tuned) => return Some(tuned),
                None => format!("{}: an entry that is no choice", cache.folder().display()),
            },
        };
        self.ignored.lock().unwrap_or_else(PoisonError::into_inner).push(ignored);
        None
    }
}

impl Table for CachedChoices {
    fn find(&self, kernel: &str) -> Option<Tuned> {
        let rounded = (self.rounding == Rounding::Tuned).then(|| self.look(kernel, Rounding::Tuned)).flatten();
        rounded.or_else(|| self.look(kernel, Rounding::Kept))
    }

    fn notes(&self) -> Vec<String> {
        let ignored = self.ignored.lock().unwrap_or_else(PoisonError::into_inner);
        ignored.iter().map(|why| format!("ignored in the cache: {why}")).collect()
    }
}

/// The text of the cost model's choice.
const USUAL: &str = "usual";

fn to_text(tuned: &Tuned) -> String {
    let choice = tuned.choice.map_or(USUAL.to_owned(), |choice| choice.to_string());
    let Measured { tuned, usual, threads } = tuned.measured;
    format!("{choice}\ntuned_us {tuned}\nusual_us {usual}\nthreads {threads}\n")
}

fn from_text(text: &str, rounding: Rounding) -> Option<Tuned> {
    let mut lines = text.lines();
    let choice = match lines.next()? {
        USUAL => None,
        choice => Some(choice.parse::<Choice>().ok()?),
    };
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let tuned = field("tuned_us")?.parse().ok()?;
    let usual = field("usual_us")?.parse().ok()?;
    let measured = Measured { tuned, usual, threads: field("threads")?.parse().ok()? };
    Some(Tuned { choice, rounding, measured })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    fn tuned(choice: Option<&str>, rounding: Rounding) -> Tuned {
        let measured = Measured { tuned: 41.25, usual: 52.5, threads: 2 };
        Tuned { choice: choice.map(|text| text.parse().unwrap()), rounding, measured }
    }

    #[test]
    fn choices_come_back_for_their_threads() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let two = CachedChoices::new(&cache, 2, Rounding::Kept);
        for choice in [None, Some("window tiles=3")] {
            two.put("a", &tuned(choice, Rounding::Kept)).unwrap();
            assert_eq!(two.find("a"), Some(tuned(choice, Rounding::Kept)));
        }
        assert_eq!(two.find("b"), None);
        assert_eq!(CachedChoices::new(&cache, 1, Rounding::Kept).find("a"), None);
    }

    #[test]
    fn choices_that_change_bits_are_read_on_request_only_and_for_any_threads() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let rounded = tuned(Some("winograd tile=4 groups=1 parts=1"), Rounding::Tuned);
        CachedChoices::new(&cache, 2, Rounding::Tuned).put("a", &rounded).unwrap();
        let find = |threads, rounding| CachedChoices::new(&cache, threads, rounding).find("a");
        assert_eq!((find(2, Rounding::Kept), find(1, Rounding::Kept)), (None, None));
        assert_eq!((find(2, Rounding::Tuned), find(1, Rounding::Tuned)), (Some(rounded), Some(rounded)));
        let exact = tuned(None, Rounding::Kept);
        CachedChoices::new(&cache, 1, Rounding::Kept).put("a", &exact).unwrap();
        assert_eq!((find(1, Rounding::Kept), find(1, Rounding::Tuned)), (Some(exact), Some(rounded)));
    }

    #[test]
    fn an_entry_that_means_nothing_is_ignored_and_noted() {
        let folder = tempfile::tempdir().unwrap();
        let table = CachedChoices::new(&Cache::new(folder.path()), 1, Rounding::Kept);
        for text in ["", "window tiles=1", "jump\ntuned_us 1\nusual_us 1\nthreads 1\n", "\u{0}"] {
            let (cache, key) = table.place("a", Rounding::Kept);
            cache.put(&key, text.as_bytes()).unwrap();
            assert_eq!(table.find("a"), None, "{text}");
        }
        assert_eq!(table.notes().len(), 4);
    }
}
