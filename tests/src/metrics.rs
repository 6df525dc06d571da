//! Reading Prometheus text.

/// The sum over all label sets of one metric; `None` when it is not there.
pub fn sum(text: &str, metric: &str) -> Option<f64> {
    let values: Vec<f64> = text.lines().filter_map(|line| value(line, metric)).collect();
    if values.is_empty() { None } else { Some(values.iter().sum()) }
}

fn value(line: &str, metric: &str) -> Option<f64> {
    let rest = line.strip_prefix(metric)?;
    let rest = match rest.strip_prefix('{') {
        Some(labelled) => labelled.split_once('}')?.1,
        None => rest.strip_prefix(' ')?,
    };
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn sums_label_sets_and_ignores_longer_names() {
        let text = "# TYPE a gauge\na 2\na{x=\"1\"} 3\na_total 7\n";
        assert_eq!(sum(text, "a"), Some(5.0));
        assert_eq!(sum(text, "b"), None);
    }
}
