//! When the text of a file is judged: at once, or after another look because it may still be
//! written. Pure: the time comes in as an argument.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a suspicious text has to stay the same before it is judged.
pub(super) const SETTLE: Duration = Duration::from_millis(200);

/// How long a file that keeps changing is waited for, altogether.
const PATIENCE: Duration = Duration::from_millis(600);

/// The files that are waited for.
#[derive(Debug, Default)]
pub(super) struct Settling {
    waiting: BTreeMap<Arc<str>, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    text_hash: u64,
    /// When this text was first seen.
    since: Instant,
    /// When the file was first found suspicious.
    began: Instant,
}

/// What to do with the text of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is what its writer meant.
    Judge,
    /// Leave the file as it was, and look again.
    LookAgain,
}

impl Settling {
    /// Decides about a text that looks complete or suspicious: broken, or cut off.
    pub(super) fn verdict(
        &mut self,
        file: &Arc<str>,
        text_hash: u64,
        is_suspicious: bool,
        now: Instant,
    ) -> Verdict {
        if !is_suspicious {
            self.waiting.remove(file);
            return Verdict::Judge;
        }
        let waiting =
            self.waiting.entry(file.clone()).or_insert(Waiting { text_hash, since: now, began: now });
        if waiting.text_hash != text_hash {
            (waiting.text_hash, waiting.since) = (text_hash, now);
        }
        if now - waiting.since < SETTLE && now - waiting.began < PATIENCE {
            return Verdict::LookAgain;
        }
        self.waiting.remove(file);
        Verdict::Judge
    }

    /// Whether any file is waited for.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Forgets files that are gone.
    pub(super) fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        self.waiting.retain(|file, _| exists(file));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspicious_text_is_judged_when_it_stays_or_when_patience_ends() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let file: Arc<str> = "a.yaml".into();
        let mut settling = Settling::default();
        assert_eq!(settling.verdict(&file, 1, false, at(0)), Verdict::Judge);

        assert_eq!(settling.verdict(&file, 1, true, at(0)), Verdict::LookAgain);
        assert_eq!(settling.verdict(&file, 1, true, at(199)), Verdict::LookAgain);
        assert_eq!(settling.verdict(&file, 1, true, at(200)), Verdict::Judge);
        assert!(!settling.is_waiting());

        for (ms, hash) in [(0, 1), (150, 2), (300, 3), (450, 4)] {
            assert_eq!(settling.verdict(&file, hash, true, at(ms)), Verdict::LookAgain, "{ms}");
        }
        assert_eq!(settling.verdict(&file, 5, true, at(600)), Verdict::Judge);

        assert_eq!(settling.verdict(&file, 1, true, at(0)), Verdict::LookAgain);
        assert_eq!(settling.verdict(&file, 2, false, at(10)), Verdict::Judge);
        assert!(!settling.is_waiting());
    }
}
