use std::fmt;

/// One variable that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The variable's full name.
    pub variable: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// Everything that is wrong with the environment; the process ends with exit code 64.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<Mistake>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: {}", mistake.variable, mistake.problem)?;
        }
        Ok(())
    }
}
