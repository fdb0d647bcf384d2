//! Prometheus' text format, version 0.0.4.
//!
//! `# TYPE` names the metric as its samples do, with `_total`. The `# EOF` at the end is a
//! comment in this format; it tells a reader that nothing was cut off.

use std::fmt::Write;

use crate::registry::{Sort, Total};

pub(crate) fn head(out: &mut String, name: &str, help: &str, sort: &Sort) {
    let (suffix, kind) = match sort {
        Sort::Counter => ("_total", "counter"),
        Sort::Gauge => ("", "gauge"),
        Sort::Histogram(_) => ("", "histogram"),
    };
    let _ = write!(out, "# HELP {name}{suffix} ");
    for character in help.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    let _ = writeln!(out, "\n# TYPE {name}{suffix} {kind}");
}

pub(crate) fn value(out: &mut String, name: &str, sort: &Sort, labels: &str, total: &Total) {
    match total {
        Total::Count(count) => sample(out, (name, "_total"), labels, None, count),
        Total::Value(value) => number(out, name, sort, labels, *value),
        Total::Buckets { counts, sum } => {
            let Sort::Histogram(bounds) = sort else {
                return;
            };
            let mut cumulated = 0_u64;
            for (bound, count) in bounds.iter().chain([&f64::INFINITY]).zip(counts) {
                cumulated = cumulated.wrapping_add(*count);
                sample(out, (name, "_bucket"), labels, Some(*bound), &cumulated);
            }
            sample(out, (name, "_sum"), labels, None, &Number(*sum));
            sample(out, (name, "_count"), labels, None, &cumulated);
        }
    }
}

pub(crate) fn number(out: &mut String, name: &str, sort: &Sort, labels: &str, value: f64) {
    let suffix = if *sort == Sort::Counter { "_total" } else { "" };
    sample(out, (name, suffix), labels, None, &Number(value));
}

fn sample(
    out: &mut String,
    (name, suffix): (&str, &str),
    labels: &str,
    bound: Option<f64>,
    value: &dyn std::fmt::Display,
) {
    out.push_str(name);
    out.push_str(suffix);
    if !labels.is_empty() || bound.is_some() {
        out.push('{');
        out.push_str(labels);
        if let Some(bound) = bound {
            let comma = if labels.is_empty() { "" } else { "," };
            let _ = write!(out, "{comma}le=\"{}\"", Number(bound));
        }
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

/// Rust writes `inf` where the format wants `+Inf`.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            finite => write!(f, "{finite}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use crate::{Labels, Registry};

    const BOUNDS: &[f64] = &[0.05, 0.5, 1.0, 10.0];

    type Sample = (String, BTreeMap<String, String>, f64);

    /// Reads the format as its specification describes it, independently of the writer.
    fn parse(text: &str) -> Vec<Sample> {
        let mut samples = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name_end = line.find(['{', ' ']).expect("a sample has a value");
            let (name, mut rest) = line.split_at(name_end);
            let mut labels = BTreeMap::new();
            if let Some(inside) = rest.strip_prefix('{') {
                let mut inside = inside;
                while !inside.starts_with('}') {
                    let (key, after) = inside.split_once("=\"").expect("a label has a value");
                    let (value, after) = unescape(after);
                    assert!(
                        labels.insert(key.to_owned(), value).is_none(),
                        "{key} is there twice in {line}"
                    );
                    inside = after.strip_prefix(',').unwrap_or(after);
                }
                rest = &inside[1..];
            }
            let value = rest.trim().replace("Inf", "inf").parse().expect("a number");
            samples.push((name.to_owned(), labels, value));
        }
        samples
    }

    fn unescape(text: &str) -> (String, &str) {
        let mut value = String::new();
        let mut characters = text.char_indices();
        while let Some((index, character)) = characters.next() {
            match character {
                '"' => return (value, &text[index + 1..]),
                '\\' => match characters.next().expect("something is escaped").1 {
                    'n' => value.push('\n'),
                    escaped => value.push(escaped),
                },
                other => value.push(other),
            }
        }
        panic!("the value of a label does not end");
    }

    proptest! {
        #[test]
        fn what_was_counted_is_read_back(
            series in prop::collection::btree_map("\\PC{0,12}|[\"\\\\\n]{1,4}", 0..u64::from(u32::MAX), 0..8),
            gauge in any::<f64>().prop_filter("a number", |value| !value.is_nan()),
            observed in prop::collection::vec(0.0..20.0_f64, 0..20),
            help in "\\PC*\n?",
        ) {
            let registry = Registry::new();
            let mut expected = Vec::new();
            let handles: Vec<_> = series.iter().map(|(value, count)| {
                let labels = Labels::none().with("value", value);
                let handle = registry.counter("a", &help, &labels);
                handle.add(*count);
                #[expect(clippy::cast_precision_loss, reason = "below 2^32")]
                expected.push((
                    "a_total".to_owned(),
                    BTreeMap::from([("value".to_owned(), value.clone())]),
                    *count as f64,
                ));
                handle
            }).collect();
            registry.gauge("b", &help, &Labels::none()).set(gauge);
            expected.push(("b".to_owned(), BTreeMap::new(), gauge));
            let histogram = registry.histogram("c", &help, BOUNDS, &Labels::none());
            for value in &observed {
                histogram.observe(*value);
            }
            let at_most = |bound: f64| {
                u32::try_from(observed.iter().filter(|value| **value <= bound).count())
                    .map(f64::from)
                    .expect("few")
            };
            for bound in [0.05, 0.5, 1.0, 10.0, f64::INFINITY] {
                let text = if bound.is_infinite() { "+Inf".to_owned() } else { bound.to_string() };
                expected.push((
                    "c_bucket".to_owned(),
                    BTreeMap::from([("le".to_owned(), text)]),
                    at_most(bound),
                ));
            }
            expected.push(("c_sum".to_owned(), BTreeMap::new(), observed.iter().sum()));
            expected.push(("c_count".to_owned(), BTreeMap::new(), at_most(f64::INFINITY)));

            let text = registry.render();

            prop_assert!(text.ends_with("# EOF\n"));
            let mut read = parse(&text);
            let order = |one: &Sample, other: &Sample| (&one.0, &one.1).cmp(&(&other.0, &other.1));
            read.sort_by(order);
            expected.sort_by(order);
            prop_assert_eq!(read, expected);
            drop(handles);
        }
    }
}
