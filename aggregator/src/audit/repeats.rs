//! What somebody can cause at will, such as refusals: the first of its kind is recorded as it comes, the rest are counted, so that nobody
//! fills the disk by being refused, or by asking (invariant 6).

use std::collections::BTreeMap;

use starling_audit::{About, Action, Entry, Who};
use starling_wire::Refusal;

/// How long repeats of one kind are counted before their number is recorded.
pub(crate) const INTERVAL_MS: u64 = 10 * 60 * 1000;

/// Kinds that are told apart within an interval. With two records a kind and interval, this is at most 74,000 records (25 MB) a day, for an
/// attacker who holds as many certificates as that.
const KINDS_MAX: usize = 256;

/// Who, what, the refusal's code and the verb. Beyond [`KINDS_MAX`], everybody is a stranger.
type Kind = (String, u16, &'static str, &'static str);

#[derive(Debug)]
struct Count {
    who: Who,
    reason: Option<Refusal>,
    action: Action,
    verb: Option<&'static str>,
    since_unix_ms: u64,
    /// After the first, which is recorded already.
    more: u64,
}

/// What was counted since when.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    counts: BTreeMap<Kind, Count>,
}

impl Repeats {
    /// A refusal has happened: the entry to record now, if it is the first of its kind.
    pub(crate) fn take(&mut self, now_unix_ms: u64, who: Who, action: Action, reason: Refusal) -> Option<Entry> {
        self.take_about(now_unix_ms, who, action, Some(reason), None)
    }

    /// The same for a verb of somebody's, refused with `reason` or done.
    pub(crate) fn take_about(
        &mut self,
        now_unix_ms: u64,
        who: Who,
        action: Action,
        reason: Option<Refusal>,
        verb: Option<&'static str>,
    ) -> Option<Entry> {
        let code = reason.map_or(0, Refusal::code);
        let key = |who: Who| (who.to_string(), code, action.word(), verb.unwrap_or_default());
        let full = self.counts.len() >= KINDS_MAX && !self.counts.contains_key(&key(who));
        let who = if full { Who::Stranger } else { who };
        let mut first = false;
        let count = self.counts.entry(key(who)).or_insert_with(|| {
            first = true;
            Count { who, reason, action, verb, since_unix_ms: now_unix_ms, more: 0 }
        });
        if first {
            return Some(count.entry(1, None));
        }
        count.more += 1;
        None
    }

    /// What is due: the counts of intervals that are over, or all of them at the end.
    pub(crate) fn due(&mut self, now_unix_ms: u64, all: bool) -> Vec<Entry> {
        let over = |count: &Count| all || now_unix_ms.saturating_sub(count.since_unix_ms) >= INTERVAL_MS;
        let (due, kept) = std::mem::take(&mut self.counts).into_iter().partition(|(_, count)| over(count));
        self.counts = kept;
        let due: BTreeMap<Kind, Count> = due;
        let again = due.into_values().filter(|count| count.more > 0);
        again.map(|count| count.entry(count.more, Some(count.since_unix_ms))).collect()
    }
}

impl Count {
    fn entry(&self, count: u64, since_unix_ms: Option<u64>) -> Entry {
        let word = self.verb.map(str::to_owned);
        let about = About { count: Some(count), since_unix_ms, word, ..About::default() };
        match self.reason {
            Some(reason) => Entry::refused(self.who, self.action, reason, about),
            None => Entry::done(self.who, self.action, about),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_wire::{DeviceId, Role};

    #[test]
    fn inv6_a_flood_of_refusals_is_one_record_and_a_count() {
        let mut repeats = Repeats::default();
        let mut refuse = |now| repeats.take(now, Who::Stranger, Action::PeerTurnedAway, Refusal::ForeignCertificate);
        assert_eq!(refuse(1000).expect("the first is recorded").about.count, Some(1));
        assert!((0..1_000_000).all(|_| refuse(2000).is_none()));
        assert_eq!(repeats.due(INTERVAL_MS, false), [], "the interval is not over");
        let due = repeats.due(INTERVAL_MS + 1000, false);
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].code, due[0].about.count, due[0].about.since_unix_ms), (2, Some(1_000_000), Some(1000)));
        assert_eq!(repeats.due(u64::MAX, true), [], "nothing is counted twice");
    }

    #[test]
    fn inv6_no_number_of_certificates_makes_more_kinds_than_the_bound() {
        let mut repeats = Repeats::default();
        let mut recorded = 0u64;
        for index in 0..10_000 {
            let who = Who::Certificate(Role::Device, DeviceId::seeded(1, index));
            recorded += u64::from(repeats.take(0, who, Action::UpdateRefused, Refusal::NotInCohort).is_some());
        }
        assert_eq!(usize::try_from(recorded), Ok(KINDS_MAX + 1), "the rest are strangers");
        assert_eq!(repeats.due(0, true).iter().filter_map(|entry| entry.about.count).sum::<u64>() + recorded, 10_000);
    }

    #[test]
    fn every_verb_of_everybody_is_recorded_or_counted() {
        let mut repeats = Repeats::default();
        let mut look =
            |uid, verb| repeats.take_about(1, Who::LocalUser(uid), Action::AdminRequest, None, Some(verb)).is_some();
        assert!(look(0, "run-status") && look(0, "run-list") && look(1, "run-list"));
        assert!((0..5).all(|_| !look(0, "run-status")));
        let due = repeats.due(0, true);
        assert_eq!(due.len(), 1);
        let Entry { who, about, outcome, .. } = &due[0];
        assert_eq!((*who, *outcome), (Who::LocalUser(0), starling_audit::Outcome::Done));
        assert_eq!((about.count, about.word.as_deref()), (Some(5), Some("run-status")));
    }
}
