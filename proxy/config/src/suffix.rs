/// A DNS suffix, in whole labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suffix(String);

impl Suffix {
    /// `.` is the suffix of every name; a trailing dot means nothing.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let name = name.strip_prefix("*.").unwrap_or(name);
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let whole = text == "." || (name.bytes().all(legal) && !name.split('.').any(str::is_empty));
        whole.then(|| Self(name.to_ascii_lowercase()))
    }

    /// Whether the name ends with this suffix, or is it.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
        let suffix = self.0.as_bytes();
        let Some(start) = name.len().checked_sub(suffix.len()) else {
            return false;
        };
        suffix.is_empty()
            || (name[start..].eq_ignore_ascii_case(suffix)
                && (start == 0 || name[start - 1] == b'.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_matches_whole_labels_only() {
        let suffix = Suffix::new("svc.cluster.local.").unwrap();

        assert!(suffix.contains("web.shop.svc.cluster.local"));
        assert!(suffix.contains("svc.Cluster.local."));
        assert!(!suffix.contains("othersvc.cluster.local"));
        assert!(!suffix.contains("local"));
        assert!(Suffix::new(".").unwrap().contains("anything.at.all"));
        assert_eq!(Suffix::new("a..b"), None);
    }
}
