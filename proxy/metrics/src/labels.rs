use std::sync::Arc;

/// The labels of one series: sorted by key and each key once, so that equal sets are equal
/// values and no rendered line can name a label twice. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The empty set.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new([]))
    }

    /// This set and one label more; a key that is there already gets the new value.
    ///
    /// Keys can come from a peer (an endpoint's labels), so what the exposition format does not
    /// allow in one is replaced by an underscore.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        self.with_all([(key, value)])
    }

    /// This set and several labels more, each as in [`Self::with`].
    #[must_use]
    pub fn with_all<K: AsRef<str>, V: AsRef<str>>(
        &self,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let mut all = self.0.to_vec();
        for (key, value) in labels {
            let key = legal_key(key.as_ref());
            let value = value.as_ref().into();
            match all.binary_search_by(|(present, _)| (**present).cmp(&key)) {
                Ok(index) => all[index].1 = value,
                Err(index) => all.insert(index, (key.into(), value)),
            }
        }
        Self(all.into())
    }

    /// This set and another one; where both have a key, the other's value counts.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.with_all(other.iter())
    }

    /// The labels in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// `key="value",…` with the values escaped.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (key, value) in self.iter() {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(key);
            text.push_str("=\"");
            for character in value.chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    other => text.push(other),
                }
            }
            text.push('"');
        }
        text
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::none()
    }
}

fn legal_key(key: &str) -> String {
    let mut legal = String::with_capacity(key.len());
    if key.is_empty() || key.starts_with(|first: char| first.is_ascii_digit()) {
        legal.push('_');
    }
    legal.extend(key.chars().map(|c| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '_'
        }
    }));
    legal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_in_which_labels_were_added_does_not_matter() {
        let one = Labels::none().with("b", "2").with("a", "1");
        let other = Labels::none().with("a", "0").with("b", "2").with("a", "1");

        assert_eq!(one, other);
        assert_eq!(one.text(), r#"a="1",b="2""#);
    }

    #[test]
    fn keys_that_the_format_does_not_allow_are_made_legal() {
        let labels = Labels::none()
            .with("app.kubernetes.io/name", "web")
            .with("1st", "x");

        assert_eq!(labels.text(), r#"_1st="x",app_kubernetes_io_name="web""#);
    }

    #[test]
    fn values_are_escaped() {
        let labels = Labels::none().with("path", "a\\b\"c\nd");

        assert_eq!(labels.text(), r#"path="a\\b\"c\nd""#);
    }

    #[test]
    fn the_second_of_two_merged_sets_wins() {
        let set = Labels::none().with("zone", "a").with("service", "web");
        let address = Labels::none().with("zone", "b");

        assert_eq!(set.and(&address).text(), r#"service="web",zone="b""#);
    }
}
