//! The root: which keys there are, and how many of which of them speak for what.

use crate::encoding::{check_name, put_count, put_name, read_count, read_name};
use crate::key::PublicKey;
use crate::limits::{KEYS_MAX, RULES_MAX};
use crate::refused::{Refused, within};
use crate::statement::Head;
use starling_wire::Reader;

/// So many of these keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    /// Bit i is the root's key i. A key is one bit, so it cannot count twice.
    members: u32,
    threshold: u8,
}

/// Who publishes for tasks of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublisherRule {
    /// A task's name, or the beginning of names and a `*`.
    pub tasks: String,
    /// How many of whom.
    pub quorum: Quorum,
}

/// The root of trust of a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    head: Head,
    /// In the order of their bytes, each once.
    keys: Vec<PublicKey>,
    root: Quorum,
    freshness: Quorum,
    /// The first one that matches a task decides, and no other is asked.
    publishers: Vec<PublisherRule>,
}

impl Quorum {
    /// At least `threshold` of its keys have to sign.
    pub fn threshold(&self) -> usize {
        usize::from(self.threshold)
    }

    fn read(reader: &mut Reader<'_>, keys: usize) -> Result<Self, Refused> {
        let (members, threshold) = (reader.u32()?, reader.u8()?);
        if keys < 32 && members >> keys != 0 {
            return Err(Refused::Malformed("a quorum names a key that the root does not have"));
        }
        if threshold == 0 || u32::from(threshold) > members.count_ones() {
            return Err(Refused::Malformed("a threshold is 0 or above the number of its keys"));
        }
        Ok(Self { members, threshold })
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.members.to_le_bytes());
        out.push(self.threshold);
    }
}

/// Whether a rule for `pattern` is about `task`.
pub fn pattern_matches(pattern: &str, task: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => task.starts_with(beginning),
        None => pattern == task,
    }
}

/// A list of keys and how many of them have to sign, as a publisher's policy says it.
type Signers<'a> = (&'a [PublicKey], u8);

impl Root {
    /// A root from lists of keys; a rule is a pattern of tasks and its signers.
    ///
    /// # Errors
    /// What a device would refuse: an empty threshold, more keys than [`KEYS_MAX`], a `*` that does not end its pattern.
    pub fn new(
        head: Head,
        root: Signers<'_>,
        freshness: Signers<'_>,
        publishers: &[(&str, Signers<'_>)],
    ) -> Result<Self, Refused> {
        let lists = [root, freshness].into_iter().chain(publishers.iter().map(|(_, signers)| *signers));
        let mut keys: Vec<PublicKey> = lists.flat_map(|(keys, _)| keys.iter().copied()).collect();
        keys.sort_unstable();
        keys.dedup();
        within("the keys", keys.len(), KEYS_MAX)?;
        within("the publisher rules", publishers.len(), RULES_MAX)?;
        let quorum = |(members, threshold): Signers<'_>| {
            let bits = members.iter().map(|key| keys.binary_search(key).expect("it was collected above"));
            Quorum { members: bits.fold(0, |mask, bit| mask | 1 << bit), threshold }
        };
        let publishers = publishers
            .iter()
            .map(|(tasks, signers)| PublisherRule { tasks: (*tasks).to_owned(), quorum: quorum(*signers) })
            .collect::<Vec<_>>();
        publishers.iter().try_for_each(|rule| check_name(&rule.tasks))?;
        let root = Self { head, root: quorum(root), freshness: quorum(freshness), publishers, keys };
        let mut body = Vec::new();
        root.put(&mut body);
        Self::read(&mut Reader::new(&body))
    }

    /// Version, dates and origin.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Its keys.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Who changes the root.
    pub fn root_quorum(&self) -> Quorum {
        self.root
    }

    /// Who says what is newest.
    pub fn freshness_quorum(&self) -> Quorum {
        self.freshness
    }

    /// Who publishes what, in the order in which they are asked.
    pub fn publishers(&self) -> &[PublisherRule] {
        &self.publishers
    }

    /// Who publishes for `task`: the first rule that matches.
    pub fn publisher_quorum(&self, task: &str) -> Option<Quorum> {
        self.publishers.iter().find(|rule| pattern_matches(&rule.tasks, task)).map(|rule| rule.quorum)
    }

    /// The keys of a quorum of this root.
    pub fn members(&self, quorum: Quorum) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter().enumerate().filter(move |(bit, _)| quorum.members >> bit & 1 == 1).map(|(_, key)| key)
    }

    /// Whether a key that counted for `before`, of the root `old`, counts no more for `after`.
    pub(crate) fn has_lost_a_member(&self, after: Option<Quorum>, old: &Root, before: Option<Quorum>) -> bool {
        let Some(before) = before else { return false };
        let still = |key: &PublicKey| after.is_some_and(|after| self.members(after).any(|member| member == key));
        old.members(before).any(|key| !still(key))
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Refused> {
        let head = Head::read(reader)?;
        let count = read_count(reader, "the keys", KEYS_MAX)?;
        let mut keys: Vec<PublicKey> = Vec::new();
        for _ in 0..count {
            let key = PublicKey(reader.digest()?);
            if keys.last().is_some_and(|before| *before >= key) {
                return Err(Refused::Malformed("its keys are not in the order of their bytes, each once"));
            }
            keys.push(key);
        }
        let (root, freshness) = (Quorum::read(reader, count)?, Quorum::read(reader, count)?);
        let rules = read_count(reader, "the publisher rules", RULES_MAX)?;
        let mut publishers = Vec::new();
        for _ in 0..rules {
            let tasks = read_name(reader)?;
            if tasks.strip_suffix('*').unwrap_or(&tasks).contains('*') {
                return Err(Refused::Malformed("a * in a pattern of tasks stands before its end"));
            }
            publishers.push(PublisherRule { tasks, quorum: Quorum::read(reader, count)? });
        }
        Ok(Self { head, keys, root, freshness, publishers })
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        self.head.put(out);
        put_count(out, self.keys.len());
        self.keys.iter().for_each(|key| out.extend_from_slice(key.bytes()));
        self.root.put(out);
        self.freshness.put(out);
        put_count(out, self.publishers.len());
        for rule in &self.publishers {
            put_name(out, &rule.tasks);
            rule.quorum.put(out);
        }
    }
}
