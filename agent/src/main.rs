//! The `jobcred` command.

use jobcred::{cli, supervisor};

fn main() {
    // First of all: what was inherited, before this process opens anything of its own.
    let entry = supervisor::Entry::capture();
    cli::main(std::env::args_os(), entry).imitate()
}
