//! Tags: an operator's words for devices, by which tasks and releases are kept to some of them.

use crate::error::SpecError;

/// Tags of one device, or that a task may ask for.
pub const TAGS_MAX: usize = 16;

/// Bytes of one tag. With [`TAGS_MAX`] the tags of a device are a quarter of its record.
pub const TAG_BYTES_MAX: usize = 48;

/// Whether `tags` can be those of a device or a task.
///
/// # Errors
/// Names the `key` and the tag.
pub fn check_tags(key: &str, tags: &[String]) -> Result<(), SpecError> {
    if tags.len() > TAGS_MAX {
        return Err(SpecError::value(key, format!("{} tags", tags.len()), format!("expected at most {TAGS_MAX}")));
    }
    // Command lines separate tags by commas and write them into task files between quotes.
    let separates = |character: char| character.is_control() || matches!(character, ',' | '"' | '\\');
    let good = |tag: &String| (1..=TAG_BYTES_MAX).contains(&tag.len()) && !tag.contains(separates);
    match tags.iter().find(|tag| !good(tag)) {
        None => Ok(()),
        Some(tag) => {
            let tag: String = tag.chars().take(TAG_BYTES_MAX).collect();
            let expected = format!("expected 1 to {TAG_BYTES_MAX} printable bytes without comma, quote and backslash");
            Err(SpecError::value(key, format!("{tag:?}"), expected))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_a_command_line_or_a_record_cannot_hold_are_refused_by_name() {
        let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
        assert_eq!(check_tags("tags", &tags(&["north", "pumpe 4", "süd"])), Ok(()));
        for wrong in ["", "a,b", "a\"b", "a\\b", "a\nb", &"x".repeat(49)] {
            let error = check_tags("federation.tags", &tags(&["north", wrong])).expect_err("no tag").to_string();
            assert!(error.starts_with("federation.tags = "), "{error}");
        }
        let many: Vec<_> = (0..17).map(|tag| tag.to_string()).collect();
        assert!(check_tags("tags", &many).is_err());
    }
}
