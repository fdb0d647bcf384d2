/// How a line of the access log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// The common log format.
    Apache,
    /// One object per line.
    Json,
}

impl AccessFormat {
    /// The format of this name, as in annotations and environment.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "apache" => Some(Self::Apache),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}
