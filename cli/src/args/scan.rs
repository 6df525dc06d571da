//! What `listmill scan` takes.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
A key is told by its form, checksum included, so what is found is hardly ever something else. Text and
binary files are read, whatever their size, UTF-16 too; archives are not opened, symbolic links are not
followed, and .gitignore does not count: what is not committed is leaked in other ways. Of each key only
the place and the first 8 characters are printed.

Examples:
  listmill scan .                                    files below this folder
  listmill scan --git .                              …and everything that was ever committed
  kubectl logs deploy/app | listmill scan -          what comes by stdin
  listmill scan --check .                            …and whose the keys are, from the database
  listmill scan --report --url https://api.example.com .   …and end them there, at once

Exit codes: 0 no key found; 1 at least one found; 2 none found, but something could not be read (or the
scan could not be made); 130 interrupted.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub struct ScanArgs {
    /// Files and folders (`-` = stdin)
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Scan the history of the Git repository at each PATH, too: all objects, also those of no branch
    #[arg(long)]
    pub git: bool,

    /// Leave out files that are larger, such as 500K, 20M or 1G [default: none is too large]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_file_size: Option<u64>,

    /// Look for keys with this prefix instead of the setting's (repeatable)
    #[arg(long = "prefix", value_name = "PREFIX", value_parser = prefix)]
    pub prefixes: Vec<String>,

    /// Look each key up in the database of the settings: whose it is, and whether it still opens anything
    #[arg(long, conflicts_with = "report")]
    pub check: bool,

    /// Report each key as leaked to the API at --url, which ends it at once
    #[arg(long)]
    pub report: bool,

    /// The API [default: http://<bind>]
    #[arg(long, requires = "report", value_name = "URL")]
    pub url: Option<String>,
}

/// Bytes, or K, M, G of them (1024).
fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match &text[digits..] {
        "" => Some(0),
        "K" | "k" => Some(10),
        "M" | "m" => Some(20),
        "G" | "g" => Some(30),
        _ => None,
    };
    let number = text[..digits].parse::<u64>().ok();
    number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(1 << unit))
        .ok_or_else(|| format!("{text:?} is no size such as 500K, 20M or 1G"))
}

fn prefix(text: &str) -> Result<String, String> {
    match (1..=16).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric()) {
        true => Ok(text.to_owned()),
        false => Err(String::from("a prefix is 1 to 16 letters and digits")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_or_refused() {
        assert_eq!((size("7"), size("2K"), size("3G")), (Ok(7), Ok(2048), Ok(3 << 30)));
        for wrong in ["", "K", "-1", "1.5M", "2X", "99999999999G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
