//! Where jobcred may stand in for the endpoint that COMMAND's SDKs would ask: pure, like the choice.
//!
//! First comes that nothing is taken away that worked without jobcred. A managed identity that an SDK names, and that the
//! platform's endpoint would have given, must not be refused because jobcred was put in front of the command.

use super::reading::Id;
use super::{Choice, StartError, Strategy, Upstream};
use crate::config::{Config, Dialect, UserDialects};
use crate::platform::Environment;

/// What COMMAND is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StandIn {
    /// The dialects whose variables it gets.
    pub dialects: Vec<Dialect>,
    /// Something that a person should know about it.
    pub remark: Option<&'static str>,
}

/// Variables by which SDKs take App Service's for somebody else's, or find an endpoint already.
const IN_THE_WAY: [&str; 4] = [
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
];

/// What to give COMMAND. `choice` is `None` where nothing was decided yet, because the metadata service has to be asked; a
/// command whose job has no identity is given nothing at all, and nobody asks here for it.
#[must_use]
pub fn stand_in(config: &Config, platform: &Environment, choice: Option<&Choice>) -> StandIn {
    let is_asked_for = config.exclusive || config.dialects.is_some();
    let takes_nothing_away = choice.is_some_and(gives_all_there_is)
        && !IN_THE_WAY.iter().any(|name| platform.get(name).is_some())
        && !(is_users(choice)
            && (config.user_dialects == UserDialects::Refuse || has_another_identity(platform)));
    if !is_asked_for && !takes_nothing_away {
        return StandIn::default();
    }
    let mut dialects = match &config.dialects {
        Some(listed) => listed.clone(),
        None => vec![Dialect::AppService],
    };
    if config.exclusive && !dialects.contains(&Dialect::AppService) {
        dialects.push(Dialect::AppService);
    }
    let mut remark = None;
    if platform.get("IDENTITY_SERVER_THUMBPRINT").is_some()
        && dialects.contains(&Dialect::AppService)
    {
        dialects.retain(|dialect| *dialect != Dialect::AppService);
        remark = Some(
            "IDENTITY_SERVER_THUMBPRINT makes Azure SDKs take every endpoint for Service Fabric's, so they are given none of jobcred's; unset it if it is a left-over",
        );
    }
    if dialects.contains(&Dialect::OnBehalfOf) && !may_act_for_a_user(choice) {
        dialects.retain(|dialect| *dialect != Dialect::OnBehalfOf);
        remark = Some("this job does not run as a user, so OBO_ENDPOINT stays as it is");
    }
    if is_users(choice) && !dialects.is_empty() && config.user_dialects == UserDialects::Serve {
        remark = Some(
            "SDKs that ask for a managed identity without naming one get the user's tokens; `user_dialects = \"refuse\"` keeps them from it",
        );
    }
    StandIn { dialects, remark }
}

/// Whether `run` leads COMMAND's SDKs to jobcred, and by which dialects or why not, as a sentence.
#[must_use]
pub(super) fn in_words(
    config: &Config,
    platform: &Environment,
    choice: Result<&Choice, &StartError>,
) -> String {
    let Ok(choice) = choice else {
        return "`run` does not lead Azure SDKs here, because there is no identity.".to_owned();
    };
    let StandIn { dialects, remark } = stand_in(config, platform, Some(choice));
    if !dialects.is_empty() {
        let names: Vec<_> = dialects.iter().map(|dialect| dialect.name()).collect();
        return format!("`run` leads Azure SDKs here ({}).", names.join(", "));
    }
    let in_the_way = IN_THE_WAY.iter().find(|name| platform.get(name).is_some());
    let why = match (remark, in_the_way) {
        (Some(remark), _) => remark.to_owned(),
        (None, _) if config.dialects.is_some() => "`dialects` names none".to_owned(),
        (None, _) if !gives_all_there_is(choice) => format!(
            "the platform may give them other identities than that of {}; `run --exclusive` leads them here",
            choice.strategy
        ),
        (None, Some(name)) => {
            format!("{name} is set already; `run --exclusive` leads them here")
        }
        (None, None) if config.user_dialects == UserDialects::Refuse => {
            "`user_dialects` refuses them the user's tokens".to_owned()
        }
        (None, None) => {
            "there are signs of another identity beside the user's; `run --exclusive` leads them here"
                .to_owned()
        }
    };
    format!("`run` does not lead Azure SDKs here: {why}.")
}

/// Whether there are signs of an identity beside the user's: the compute's, or a pod's. The platform says that a job has none, but
/// code that asks for one which there is must neither get the user instead nor be refused.
fn has_another_identity(platform: &Environment) -> bool {
    let of_the_compute = Id::read(platform.get("DEFAULT_IDENTITY_CLIENT_ID"));
    of_the_compute.guid().is_some() || platform.get("AZURE_FEDERATED_TOKEN_FILE").is_some()
}

/// Whether policy refuses no identity that the platform's endpoint could have given.
fn gives_all_there_is(choice: &Choice) -> bool {
    match choice.strategy {
        // Any identity of the cluster may be named, unless the configuration narrows that; a job that runs as a user has no
        // managed identity beside; and a sandbox has nobody at all.
        Strategy::ComputeIdentity | Strategy::UserIdentity | Strategy::Sandbox => true,
        // Azure ML's Kubernetes compute has one identity. Workload identity and the node's metadata service may have many.
        Strategy::Kubernetes => matches!(choice.upstream, Upstream::AzureMl { .. }),
        // There may be others than the one that is the job's, or what the platform has is somebody else.
        Strategy::SystemIdentity
        | Strategy::ComputeInstanceUser
        | Strategy::ServicePrincipal
        | Strategy::AzureCli => false,
    }
}

fn is_users(choice: Option<&Choice>) -> bool {
    choice.is_some_and(|choice| {
        matches!(
            choice.strategy,
            Strategy::UserIdentity | Strategy::ComputeInstanceUser
        )
    })
}

fn may_act_for_a_user(choice: Option<&Choice>) -> bool {
    is_users(choice) || choice.is_some_and(|choice| choice.strategy == Strategy::Sandbox)
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::{StandIn, in_words, stand_in};
    use crate::config::{Config, Dialect, UserDialects};
    use crate::platform::Environment;
    use crate::strategy::{Choice, Strategy, Upstream};

    fn url() -> Url {
        Url::parse("http://127.0.0.1:1/").unwrap()
    }

    fn azure_ml() -> Upstream {
        Upstream::AzureMl {
            endpoint: url(),
            secret: None,
        }
    }

    fn choice(strategy: Strategy, upstream: Upstream) -> Choice {
        Choice {
            strategy,
            upstream,
            client_id: None,
        }
    }

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn given(config: &Config, variables: &[(&str, &str)], choice: &Choice) -> StandIn {
        stand_in(config, &environment(variables), Some(choice))
    }

    #[test]
    fn by_default_nothing_that_the_platform_would_have_given_is_taken_away() {
        let imds = Upstream::Imds { base: url() };
        let on_behalf_of = Upstream::OnBehalfOf {
            endpoint: url(),
            secret: None,
        };
        let app_service = Upstream::AppService {
            endpoint: url(),
            header: "h".into(),
        };
        let workload = Upstream::WorkloadIdentity {
            authority: url(),
            tenant: "t".to_owned(),
            client_id: "c".to_owned(),
            token_file: "/t".into(),
        };
        for (strategy, upstream, expected) in [
            (Strategy::ComputeIdentity, azure_ml(), true),
            (Strategy::UserIdentity, on_behalf_of, true),
            (Strategy::Kubernetes, azure_ml(), true),
            (Strategy::Sandbox, Upstream::Sandbox, true),
            (Strategy::Kubernetes, workload, false),
            (Strategy::Kubernetes, imds.clone(), false),
            (Strategy::SystemIdentity, azure_ml(), false),
            (Strategy::SystemIdentity, app_service, false),
            (Strategy::SystemIdentity, imds, false),
            (Strategy::ComputeInstanceUser, azure_ml(), false),
        ] {
            let choice = choice(strategy, upstream);
            let StandIn { dialects, .. } = given(&Config::default(), &[], &choice);
            assert_eq!(!dialects.is_empty(), expected, "{choice:?}");
            let asked = Config {
                exclusive: true,
                ..Config::default()
            };
            let StandIn { dialects, .. } = given(&asked, &[], &choice);
            assert_eq!(dialects, [Dialect::AppService], "{choice:?}");
        }
        // Where it hangs on the metadata service.
        let undecided = |config: &Config| stand_in(config, &Environment::default(), None).dialects;
        assert_eq!(undecided(&Config::default()), []);
        let asked = Config {
            dialects: Some(vec![Dialect::AppService]),
            ..Config::default()
        };
        assert_eq!(undecided(&asked), [Dialect::AppService]);
    }

    #[test]
    fn variables_that_are_in_the_way() {
        let choice = choice(Strategy::ComputeIdentity, azure_ml());
        for name in super::IN_THE_WAY {
            let StandIn { dialects, remark } = given(&Config::default(), &[(name, "x")], &choice);
            assert_eq!(dialects, [], "{name}");
            assert_eq!(remark, None, "{name}");
        }
        let asked = Config {
            exclusive: true,
            dialects: Some(vec![Dialect::AzureMl]),
            ..Config::default()
        };
        for (name, expected) in [
            (
                "IDENTITY_ENDPOINT",
                vec![Dialect::AzureMl, Dialect::AppService],
            ),
            ("IMDS_ENDPOINT", vec![Dialect::AzureMl, Dialect::AppService]),
            ("IDENTITY_SERVER_THUMBPRINT", vec![Dialect::AzureMl]),
        ] {
            let StandIn { dialects, remark } = given(&asked, &[(name, "x")], &choice);
            assert_eq!(dialects, expected, "{name}");
            assert_eq!(remark.is_some(), dialects.len() == 1, "{name}");
        }
    }

    #[test]
    fn a_users_job_says_so_and_can_refuse() {
        let choice = choice(
            Strategy::UserIdentity,
            Upstream::OnBehalfOf {
                endpoint: url(),
                secret: None,
            },
        );
        let StandIn { dialects, remark } = given(&Config::default(), &[], &choice);
        assert_eq!(dialects, [Dialect::AppService]);
        assert!(remark.unwrap().contains("the user's tokens"));
        let guid = "11111111-2222-3333-4444-555555555555";
        for (sign, is_given) in [
            (("DEFAULT_IDENTITY_CLIENT_ID", guid), false),
            (("DEFAULT_IDENTITY_CLIENT_ID", "clientid"), true),
            (("AZURE_FEDERATED_TOKEN_FILE", "/token"), false),
        ] {
            let StandIn { dialects, .. } = given(&Config::default(), &[sign], &choice);
            assert_eq!(!dialects.is_empty(), is_given, "{sign:?}");
        }
        let refusing = Config {
            user_dialects: UserDialects::Refuse,
            ..Config::default()
        };
        assert_eq!(given(&refusing, &[], &choice), StandIn::default());
    }

    #[test]
    fn where_sdks_are_led_is_said_with_the_reason() {
        let said = |config: &Config, variables: &[(&str, &str)], choice: &Choice| {
            in_words(config, &environment(variables), Ok(choice))
        };
        let cluster = choice(Strategy::ComputeIdentity, azure_ml());
        let text = said(&Config::default(), &[], &cluster);
        assert_eq!(text, "`run` leads Azure SDKs here (app_service).");
        let taken = [("IDENTITY_ENDPOINT", "http://127.0.0.1:1/")];
        let text = said(&Config::default(), &taken, &cluster);
        assert!(
            text.contains("here: IDENTITY_ENDPOINT is set already"),
            "{text}"
        );
        let system = choice(Strategy::SystemIdentity, azure_ml());
        let text = said(&Config::default(), &[], &system);
        assert!(
            text.contains("other identities") && text.contains("--exclusive"),
            "{text}"
        );
        let none = Config {
            dialects: Some(Vec::new()),
            ..Config::default()
        };
        let text = said(&none, &[], &cluster);
        assert!(text.contains("`dialects` names none"), "{text}");
        let user = choice(Strategy::UserIdentity, azure_ml());
        let another = [("AZURE_FEDERATED_TOKEN_FILE", "/token")];
        let text = said(&Config::default(), &another, &user);
        assert!(
            text.contains("another identity beside the user's"),
            "{text}"
        );
    }

    #[test]
    fn nobody_but_a_user_is_acted_for() {
        let config = Config {
            dialects: Some(vec![Dialect::OnBehalfOf, Dialect::Imds]),
            ..Config::default()
        };
        let cluster = choice(Strategy::ComputeIdentity, azure_ml());
        let StandIn { dialects, remark } = given(&config, &[], &cluster);
        assert_eq!(dialects, [Dialect::Imds]);
        assert!(remark.unwrap().contains("OBO_ENDPOINT"));
        let sandbox = choice(Strategy::Sandbox, Upstream::Sandbox);
        assert_eq!(given(&config, &[], &sandbox).dialects.len(), 2);
    }
}
