//! `adavit completions` and `adavit man`: what shells and manual readers take.

use anyhow::Result;
use clap::CommandFactory;

use crate::Ended;
use crate::args::{Args, CompletionsArgs};
use crate::output::print;

pub(crate) fn completions(args: &CompletionsArgs) -> Result<Ended> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "adavit", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Ended::Done)
}

/// The manual page, the commands' own behind the program's.
pub(crate) fn man() -> Result<Ended> {
    let mut page = Vec::new();
    let mut command = Args::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    let commands = command.get_subcommands();
    for subcommand in commands.filter(|command| command.get_name() != "help") {
        let manual = clap_mangen::Man::new(subcommand.clone());
        manual.render_name_section(&mut page)?;
        manual.render_synopsis_section(&mut page)?;
        manual.render_description_section(&mut page)?;
        manual.render_options_section(&mut page)?;
    }
    print(String::from_utf8_lossy(&page).trim_end())?;
    Ok(Ended::Done)
}
