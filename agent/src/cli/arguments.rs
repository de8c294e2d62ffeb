//! The arguments, and the help that explains them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use super::exit;
use super::tools::Tool;
use crate::supervisor::{KEEPS_ENDING, LOST};

const EXAMPLES: &str = "\
The two common uses:
  jobcred run -- python train.py      every process of the training gets its tokens from one agent
  jobcred explain                     which identity is used here, and why

A first look on a laptop, without Azure:
  jobcred run --sandbox -- jobcred token
";

const VARIABLES: &str = "\
Environment variables:
  JOBCRED_SOCKET      the agent's socket; `run` sets it for COMMAND
  JOBCRED_AGENT_UID   a uid besides one's own and root whose agent a client trusts
  JOBCRED_DISABLED    if it is 1 (true), `run` becomes COMMAND at once: without an agent, a configuration or new variables
  JOBCRED_*           every configuration key, in upper case: see docs/configuration.md
  IDENTITY_ENDPOINT, IDENTITY_HEADER
                      `run` sets them for COMMAND, so that Azure SDKs ask jobcred: see docs/dialects.md
  NO_PROXY, no_proxy  with them, `run` appends 127.0.0.1,localhost";

/// Tokens for every process of a training job, from one local agent that knows which identity the job runs as.
#[derive(Debug, Parser)]
#[command(
    name = "jobcred",
    version,
    before_help = EXAMPLES,
    after_help = format!("{}\n\n{VARIABLES}", exit::HELP),
    disable_help_subcommand = true,
    max_term_width = 110
)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: GlobalOptions,
    #[command(subcommand)]
    pub(super) action: Action,
}

/// Options that every subcommand takes.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Options for every command")]
pub(super) struct GlobalOptions {
    /// Read the configuration from FILE; commands that ask an agent take its `socket`
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(super) log: Option<String>,
    /// The agent's socket
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// Use this strategy instead of the one that would be chosen: see `jobcred explain`
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) strategy: Option<String>,
    /// Self-signed tokens, marked as worthless: for laptops, CI and demos. `run` always gives them a socket of its own, `agent` too
    /// where none, or one of the usual places, is named
    #[arg(long, global = true, conflicts_with = "strategy")]
    pub(super) sandbox: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Run COMMAND with an agent beside it
    ///
    /// COMMAND gets the same streams, limits, signals and environment as without jobcred, plus `JOBCRED_SOCKET` and, where that takes
    /// nothing away, `IDENTITY_ENDPOINT` for Azure SDKs. Signals are passed
    /// on to it, and jobcred ends exactly as it does. When no identity can be had, that is said and COMMAND runs all the same.
    ///
    /// Several of them on one node share an agent where environment and configuration lead to the same identity by the same rules; it
    /// ends with the last. Any other one has an agent of its own, on a private socket, and says so.
    #[command(after_help = "\
Examples:
  jobcred run -- python train.py --epochs 3
  jobcred run --required -- torchrun --nproc-per-node 8 train.py
  jobcred run --sandbox -- sh -c 'jobcred token'
  JOBCRED_DISABLED=1 jobcred run -- python train.py      without jobcred, also with --required: is it to blame?")]
    Run(RunOptions),
    /// Say which identity is used here and why, or why none can be
    ///
    /// Where an agent runs, it is that agent's decision. Else, and with `--anew`, `--strategy`, `--sandbox` or `--config`, it is
    /// what an agent would decide that is started here and now.
    #[command(after_help = "\
Examples:
  jobcred explain
  jobcred explain --probe       also get a token and say whose it is
  jobcred explain --report      a text for a bug report, without secrets")]
    Explain(ExplainOptions),
    /// Get a token from the agent and say whose it is
    #[command(after_help = "\
Examples:
  jobcred token                                  a token for Azure Storage
  jobcred token https://vault.azure.net          for Key Vault
  curl -H \"Authorization: Bearer $(jobcred token --raw https://management.azure.com)\" ...")]
    Token(TokenOptions),
    /// Find out why storage says no: network, token, role, and the command that mends it
    ///
    /// Goes the way of a request to a container, step by step: name, connection, TLS, token, listing. The token is the agent's,
    /// if one runs here, else the one that an agent started here would get; it is sent to the host in URL and shown to nobody.
    #[command(after_help = "\
Examples:
  jobcred check https://myaccount.blob.core.windows.net/data/train
  jobcred check abfss://data@myaccount.dfs.core.windows.net/train
  jobcred check --write https://myaccount.blob.core.windows.net/outputs
  jobcred check --account myaccount az://data/train --json | jq .findings
  jobcred run -- jobcred check https://...      with the agent of a job, as COMMAND's processes would")]
    Check(CheckOptions),
    /// Say what the agent holds and how it fares
    #[command(after_help = "Example:\n  jobcred status --json | jq .runway")]
    Status(JsonOption),
    /// Watch the agent: its tokens and how long they live, who asks, what went wrong
    #[command(after_help = "\
Keys: q ends, up and down scroll the callers. Callers are listed with the rank that their launcher gave them.

Examples:
  jobcred top
  jobcred top --interval 10")]
    Top(TopOptions),
    /// Run an agent in the foreground, as a sidecar
    ///
    /// Answers on its socket until it is told to end, and then for a grace (25 s by default) more. Takes a socket that is passed to
    /// it by the `LISTEN_FDS` convention, else makes one.
    #[command(after_help = "Example:\n  jobcred agent --socket /run/jobcred/agent.sock")]
    Agent(AgentOptions),
    /// Find or start an agent that serves this process's user, and print where it is
    ///
    /// For programs that cannot be started by `run`: a notebook's kernel, say. Prints a line of JSON: `socket`, `pid`, and whether
    /// the agent was `started` for this. It ends when nobody holds a lease (`GET /v1/lease`) any more, and half a minute after this
    /// if nobody ever does.
    #[command(hide = true)]
    Join,
    /// Print shell lines that make a shell find the agent
    ///
    /// With them go those by which Azure SDKs find it, where the agent has an identity endpoint. They have its secret in them.
    #[command(after_help = "\
Examples:
  eval \"$(jobcred env)\"
  jobcred env --for azcopy            what azcopy wants besides, and why")]
    Env(EnvOptions),
    /// Wait until the agent has every declared token
    #[command(after_help = "Example:\n  jobcred wait --timeout 30 && python train.py")]
    Wait(WaitOptions),
    /// Exit 0 if an agent answers: for container probes
    #[command(after_help = "Example:\n  jobcred health --ready")]
    Health(HealthOptions),
    /// Print what makes a shell complete jobcred's arguments
    #[command(after_help = "\
Examples:
  jobcred completions bash > ~/.local/share/bash-completion/completions/jobcred
  jobcred completions zsh > \"${fpath[1]}/_jobcred\"
  jobcred completions fish > ~/.config/fish/completions/jobcred.fish")]
    Completions(CompletionsOptions),
    /// Write the pages of the manual.
    #[command(hide = true)]
    Man(ManOptions),
}

impl Action {
    /// Whether it is about an agent that runs already.
    pub(super) fn asks_an_agent(&self) -> bool {
        matches!(
            self,
            Self::Check(_)
                | Self::Explain(_)
                | Self::Token(_)
                | Self::Status(_)
                | Self::Top(_)
                | Self::Env(_)
                | Self::Wait(_)
                | Self::Health(_)
        )
    }
}

#[derive(Args, Debug)]
pub(super) struct RunOptions {
    /// Do not start COMMAND when no identity can be had, there is no place for the socket, or no agent comes to answer there
    #[arg(long)]
    pub(super) required: bool,
    /// Lead COMMAND's Azure SDKs to jobcred alone, past the platform's own endpoint and past credentials in the environment
    #[arg(long)]
    pub(super) exclusive: bool,
    /// Do not say at start who, why, and how long an outage could last, or that nothing leads to an identity; nor after a failure that
    /// no request failed
    #[arg(long, short)]
    pub(super) quiet: bool,
    /// COMMAND and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub(super) command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(super) struct AgentOptions {
    /// The pid of the supervisor that started it.
    #[arg(long, hide = true, value_name = "PID")]
    pub(super) supervised: Option<i32>,
    /// What to say of the selection at start, where the supervisor could not: all, or only what went wrong.
    #[arg(long, hide = true, value_name = "WHAT", value_parser = ["all", "errors"])]
    pub(super) announce: Option<String>,
    /// The descriptor of the record that outlives this agent.
    #[arg(long, hide = true, value_name = "FD")]
    pub(super) record: Option<i32>,
    /// Where the socket is that it was given, to be removed when nobody counts on it any more.
    #[arg(long, hide = true, value_name = "PATH")]
    pub(super) place: Option<PathBuf>,
    /// Begin without a supervisor, and end when nobody holds a lease after this many seconds.
    #[arg(
        long,
        hide = true,
        value_name = "SECONDS",
        conflicts_with = "supervised",
        requires = "place"
    )]
    pub(super) linger: Option<u64>,
    /// How often this job's agent was started again before.
    #[arg(long, hide = true, value_name = "NUMBER", default_value_t = 0)]
    pub(super) restarts: u32,
    /// Where COMMAND runs: the job's log goes below it, as the configuration says.
    #[arg(long, hide = true, value_name = "DIR")]
    pub(super) directory: Option<PathBuf>,
    /// Write the job's log while COMMAND runs, too.
    #[arg(long, hide = true)]
    pub(super) live_log: bool,
    /// What the lines of this job's agents have in common in the job's log.
    #[arg(long, hide = true, value_name = "ID")]
    pub(super) log_id: Option<String>,
    /// Answer every request with an error, for this reason.
    #[arg(long, hide = true, requires = "supervised", value_parser = [KEEPS_ENDING, LOST])]
    pub(super) refuse: Option<String>,
}

impl AgentOptions {
    /// Whether another process of this program has started it, for a job or for a program: its callers get an answer whatever
    /// goes wrong, and nobody reads what it says.
    pub(super) fn is_of_a_job(&self) -> bool {
        self.supervised.is_some() || self.linger.is_some()
    }

    /// Whether this process says at start who and why; inside, whether it says only what went wrong.
    pub(super) fn announces(&self) -> Option<bool> {
        match (&self.announce, self.supervised) {
            (Some(what), _) => Some(what == "errors"),
            (None, None) => Some(false),
            (None, Some(_)) => None,
        }
    }
}

#[derive(Args, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of its own on the command line"
)]
pub(super) struct ExplainOptions {
    /// Decide anew, as an agent started here and now would, though one runs already
    #[arg(long)]
    pub(super) anew: bool,
    /// Print the explanation as JSON with stable reason codes
    #[arg(long)]
    pub(super) json: bool,
    /// Get a storage token and say whose it is
    #[arg(long)]
    pub(super) probe: bool,
    /// Print a text fit for a bug report, without secrets
    #[arg(long)]
    pub(super) report: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(super) color: ColorChoice,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ColorChoice {
    Auto,
    Always,
    Never,
}

#[derive(Args, Debug)]
pub(super) struct CheckOptions {
    /// A container, or a path in one: https://, abfss://, abfs://, wasbs:// or az://
    #[arg(value_name = "URL")]
    pub(super) url: String,
    /// Also make an empty file of a new name, and delete it again; nothing is overwritten
    #[arg(long)]
    pub(super) write: bool,
    /// The account, for a URL that does not name it (default: `AZURE_STORAGE_ACCOUNT_NAME`)
    #[arg(long, value_name = "NAME")]
    pub(super) account: Option<String>,
    /// Send the token to URL's host although it is none of Azure's: a custom domain or an emulator
    #[arg(long, value_name = "KIND")]
    pub(super) service: Option<ServiceChoice>,
    /// Print JSON with stable codes
    #[arg(long)]
    pub(super) json: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(super) color: ColorChoice,
}

/// Which of an account's endpoints a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ServiceChoice {
    /// The blob endpoint
    Blob,
    /// The Data Lake Storage endpoint
    Dfs,
}

#[derive(Args, Debug)]
pub(super) struct TokenOptions {
    /// What the token is for, as a resource
    #[arg(value_name = "RESOURCE", default_value = "https://storage.azure.com")]
    pub(super) resource: String,
    /// What the token is for, as a scope; instead of RESOURCE
    #[arg(long, conflicts_with = "resource")]
    pub(super) scope: Option<String>,
    /// Ask as this identity instead of the job's own, by client id
    #[arg(long, value_name = "ID", group = "identity")]
    pub(super) client_id: Option<String>,
    /// The same, by object id
    #[arg(long, value_name = "ID", group = "identity")]
    pub(super) object_id: Option<String>,
    /// The same, by Azure resource id
    #[arg(long, value_name = "ID", group = "identity")]
    pub(super) resource_id: Option<String>,
    /// The tenant that shall issue it
    #[arg(long, value_name = "ID")]
    pub(super) tenant_id: Option<String>,
    /// Seconds the token should still live; where the platform has no longer one, the agent answers with less
    #[arg(long, value_name = "SECONDS")]
    pub(super) min_validity: Option<u64>,
    /// Print the token and nothing else
    #[arg(long, conflicts_with = "json")]
    pub(super) raw: bool,
    /// Print its claims as JSON, without the token
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct TopOptions {
    /// How often the agent is asked
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(super) interval: u64,
}

#[derive(Args, Debug)]
pub(super) struct JsonOption {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct EnvOptions {
    /// Also print what this tool needs to get its tokens from the agent, and why
    #[arg(long = "for", value_name = "TOOL")]
    pub(super) tool: Option<Tool>,
}

#[derive(Args, Debug)]
pub(super) struct WaitOptions {
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(super) timeout: u64,
}

#[derive(Args, Debug)]
pub(super) struct HealthOptions {
    /// Also want every declared token to exist
    #[arg(long)]
    pub(super) ready: bool,
}

#[derive(Args, Debug)]
pub(super) struct CompletionsOptions {
    /// For which shell
    pub(super) shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub(super) struct ManOptions {
    /// Where to: made if it is not there.
    #[arg(value_name = "DIRECTORY")]
    pub(super) directory: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::{Action, Arguments};

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_the_command_is_the_commands() {
        for line in [
            "jobcred run --sandbox -- python -c x --socket y",
            "jobcred --sandbox run python -c x --socket y",
        ] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert!(arguments.global.sandbox, "{line}");
            assert_eq!(arguments.global.socket, None, "{line}");
            let Action::Run(run) = arguments.action else {
                panic!("{line}")
            };
            assert_eq!(run.command, ["python", "-c", "x", "--socket", "y"]);
        }
    }

    #[test]
    fn the_help_begins_with_the_common_uses_and_lists_every_command() {
        let help = Arguments::command().render_long_help().to_string();
        assert!(help.starts_with("The two common uses:"), "{help}");
        for name in [
            "run", "explain", "token", "check", "status", "agent", "env", "wait", "health",
        ] {
            assert!(help.contains(&format!("\n  {name} ")), "{name}");
        }
    }
}
