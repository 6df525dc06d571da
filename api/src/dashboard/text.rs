//! The catalogue: every text that a person reads in the dashboard, by section and name.
//!
//! `api/texts/en.toml` holds them; a second language is a second file. A test holds the templates against it.

use std::collections::HashMap;
use std::sync::LazyLock;

static ENGLISH: LazyLock<HashMap<String, String>> =
    LazyLock::new(|| parse(include_str!("../../texts/en.toml")).unwrap_or_default());

fn parse(file: &str) -> Result<HashMap<String, String>, toml::de::Error> {
    let sections: HashMap<String, HashMap<String, String>> = toml::from_str(file)?;
    let named = |(section, texts): (String, HashMap<String, String>)| {
        texts.into_iter().map(move |(name, text)| (format!("{section}.{name}"), text))
    };
    Ok(sections.into_iter().flat_map(named).collect())
}

/// A text by `section.name`; the name itself where there is none, which a test rules out.
pub fn text(name: &str) -> &str {
    ENGLISH.get(name).map_or(name, String::as_str)
}

/// The same with `{name}` filled in.
pub fn filled(name: &str, with: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = text(name);
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((slot, after)) = after.split_once('}') else { break };
        let value = with.iter().find(|(name, _)| *name == slot);
        out.push_str(value.map_or("", |(_, value)| value));
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Names in `t("…")` and `tf("…"` of a file.
    fn asked(file: &str) -> Vec<String> {
        let mut names = Vec::new();
        for call in [".t(\"", ".tf(\"", "text(\"", "filled(\""] {
            for (at, _) in file.match_indices(call) {
                let rest = &file[at + call.len()..];
                let name = rest.split('"').next().unwrap_or_default();
                if name.contains('.') && !name.contains(' ') {
                    names.push(name.to_owned());
                }
            }
        }
        names
    }

    fn files(folder: &Path, out: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => files(&path, out),
                false => out.push(path),
            }
        }
    }

    #[test]
    fn every_text_that_is_asked_for_is_there() {
        assert!(parse(include_str!("../../texts/en.toml")).is_ok());
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut all = Vec::new();
        files(&root.join("templates"), &mut all);
        files(&root.join("src/dashboard"), &mut all);
        let mut missing = Vec::new();
        for path in all.iter().filter(|path| !path.ends_with("text.rs")) {
            let names = asked(&std::fs::read_to_string(path).unwrap());
            missing.extend(names.into_iter().filter(|name| !ENGLISH.contains_key(name)));
        }
        assert!(missing.is_empty(), "{missing:?}");
    }
}
