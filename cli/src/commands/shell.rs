//! What helps at a shell: completions and manual pages, made of the command line's own description.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use serde_json::json;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::output::Output;

/// `listmill completions`.
pub fn completions(args: &CompletionsArgs) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "listmill", &mut script);
    io::stdout().write_all(&script).context("cannot write to stdout")?;
    Ok(ExitCode::SUCCESS)
}

/// `listmill man`.
pub fn man(output: Output, args: &ManArgs) -> Result<ExitCode> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut all = Vec::new();
    pages(&command, &mut all);
    let Some(folder) = &args.output else {
        for page in all {
            page.render(&mut io::stdout()).context("cannot write to stdout")?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let names = all.iter().map(|page| write(page, folder)).collect::<Result<Vec<_>>>()?;
    output.say(format!("{} pages in {1}: man -l {1}/listmill.1", names.len(), folder.display()));
    output.object(&json!({ "folder": folder, "pages": names }))?;
    Ok(ExitCode::SUCCESS)
}

fn write(page: &Man, folder: &Path) -> Result<String> {
    let name = page.get_filename();
    let path = folder.join(&name);
    page.generate_to(folder).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(name)
}

/// A command's page, then those below it.
fn pages(command: &Command, all: &mut Vec<Man>) {
    all.push(Man::new(command.clone()));
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, all);
    }
}
