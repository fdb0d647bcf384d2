use std::fmt;

/// What about a message cannot be understood, with the way to it:
/// `routes[1]: rules[0]: filters[0]: the ratio's denominator is 0`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl Invalid {
    pub(crate) fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

/// Names the place of an error while it travels outward.
pub(crate) trait At<T> {
    fn at(self, place: impl fmt::Display) -> Result<T, Invalid>;
}

impl<T> At<T> for Result<T, Invalid> {
    fn at(self, place: impl fmt::Display) -> Self {
        self.map_err(|Invalid(why)| Invalid(format!("{place}: {why}")))
    }
}

/// A part of a message that has to be there.
pub(crate) fn required<T>(part: Option<T>, name: &str) -> Result<T, Invalid> {
    part.ok_or_else(|| Invalid::new(format_args!("{name} is missing")))
}

/// Take over every element of a list.
pub(crate) fn each<T, U>(
    name: &str,
    items: impl IntoIterator<Item = T>,
    mut take: impl FnMut(T) -> Result<U, Invalid>,
) -> Result<Box<[U]>, Invalid> {
    let take = |(index, item)| take(item).at(format_args!("{name}[{index}]"));
    items.into_iter().enumerate().map(take).collect()
}
