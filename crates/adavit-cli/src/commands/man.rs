//! `adavit man`: the manual page.

use anyhow::Result;
use clap::Command;

use crate::exit::Exit;
use crate::output::print;

/// Prints the manual page of `program`, followed by those of its commands.
pub(crate) fn run(mut program: Command) -> Result<Exit> {
    let mut page = Vec::new();
    program.build();
    clap_mangen::Man::new(program.clone()).render(&mut page)?;
    let commands = program.get_subcommands();
    for subcommand in commands.filter(|command| command.get_name() != "help") {
        let manual = clap_mangen::Man::new(subcommand.clone());
        manual.render_name_section(&mut page)?;
        manual.render_synopsis_section(&mut page)?;
        manual.render_description_section(&mut page)?;
        manual.render_options_section(&mut page)?;
    }
    print(String::from_utf8_lossy(&page).trim_end())?;
    Ok(Exit::Done)
}
