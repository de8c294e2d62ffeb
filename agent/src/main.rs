//! The `jobcred` command.

use jobcred::{cli, supervisor};

fn main() {
    if supervisor::serve_as_witness(std::env::args_os()) {
        return;
    }
    // First of all: what was inherited, before this process opens anything of its own.
    let entry = supervisor::Entry::capture();
    jobcred_lookup::use_built_in_ways();
    cli::main(std::env::args_os(), entry).imitate()
}
