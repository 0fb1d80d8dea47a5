//! Random words of the system, for noise and coins in earnest.

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// Words that are asked of the system at once: a call costs as much as some hundred bytes do.
const WORDS: usize = 512;

/// The system's entropy, word by word. What has been given out is gone from memory with the next refill, the rest when it is dropped.
///
/// # Panics
/// The closure, if the system has no entropy: nothing private can be done without, and no such system is known.
pub fn words() -> impl FnMut() -> u64 {
    let system = SystemRandom::new();
    let mut bytes = Zeroizing::new([0u8; WORDS * 8]);
    let mut left = 0;
    move || {
        if left == 0 {
            system.fill(&mut bytes[..]).expect("the system gives entropy");
            left = WORDS;
        }
        left -= 1;
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[left * 8..][..8]);
        u64::from_le_bytes(word)
    }
}

/// A secret key.
///
/// # Panics
/// As the closure of [`words`].
pub fn key() -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(&mut key[..]).expect("the system gives entropy");
    key
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn words_do_not_come_again() {
        let (mut one, mut two) = (words(), words());
        let seen: BTreeSet<u64> = (0..3 * WORDS).flat_map(|_| [one(), two()]).collect();
        assert_eq!(seen.len(), 6 * WORDS);
        assert_ne!(key(), key());
    }
}
