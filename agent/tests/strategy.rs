//! Walks the scenario folders: an environment, a few files and a probe go in; a choice with all of its reasons comes out.
//!
//! A folder `scenarios/NAME` holds `scenario.toml` and, where files matter, a file system below `root/`. Notices are
//! compared as a whole, so a scenario also says what is *not* worth a notice.

#[cfg(test)]
mod scenarios {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::{Path, PathBuf};

    use jobcred::config::{Config, Federated, RegistryConfig};
    use jobcred::platform::{Clock, Environment, Files, UnixTime};
    use jobcred::strategy::{
        Facts, ProbeResult, Selection, Strategy, clock_wrong, promise_broken, reason,
        roots_not_found, select, token_of_earlier, wants_probe,
    };
    use jobcred_wire::{Outcome, PrincipalClaims};
    use serde::Deserialize;

    /// Every secret in a scenario has this text in it, and no output may.
    const SECRET_MARK: &str = "s3cr3t";
    /// Variables that hold secrets: a scenario that sets one must mark it.
    const SECRETS: [&str; 6] = [
        "MSI_SECRET",
        "IDENTITY_HEADER",
        "AZURE_CLIENT_SECRET",
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_CONNECTION_STRING",
        "DOCKER_AUTH_CONFIG",
    ];
    /// Fewer scenarios than this means that the walk has lost some.
    const FEWEST: usize = 80;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Scenario {
        why: String,
        #[serde(default)]
        env: BTreeMap<String, String>,
        #[serde(default)]
        config: Settings,
        probe: Option<Probe>,
        claims: Option<PrincipalClaims>,
        /// How old the probe's token is, in hours.
        token_hours: Option<i64>,
        expect: Expected,
    }

    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        strategy: Option<String>,
        allow_node_identity: bool,
        probe: Option<bool>,
        authority_host: Option<String>,
        azure_cli_tenant: Option<String>,
        federated_client_id: Option<String>,
        federated_tenant_id: Option<String>,
        federated_resources: Option<Vec<String>>,
        /// Asked as the application of the two ids above, which are then no setting of the whole job.
        federated_registry: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(untagged, deny_unknown_fields)]
    enum Probe {
        Answered { status: u16, ms: u64 },
        NoAnswer { no_answer: String },
        NotMade { not_made: String },
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Expected {
        /// `none` for a start-up error.
        strategy: String,
        /// Also the start-up error's code.
        reason: String,
        /// Texts in the upstream's words.
        #[serde(default)]
        upstream: Vec<String>,
        client_id: Option<String>,
        /// A text in the reason's sentence.
        message: Option<String>,
        /// A text in the start-up error's hint.
        hint: Option<String>,
        #[serde(default)]
        wants_probe: bool,
        notices: BTreeSet<String>,
        /// Reasons of single strategies.
        #[serde(default)]
        candidates: BTreeMap<String, String>,
    }

    const STRATEGIES: [Strategy; 8] = [
        Strategy::UserIdentity,
        Strategy::ComputeIdentity,
        Strategy::Kubernetes,
        Strategy::SystemIdentity,
        Strategy::ComputeInstanceUser,
        Strategy::ServicePrincipal,
        Strategy::AzureCli,
        Strategy::Sandbox,
    ];

    fn folders() -> Vec<PathBuf> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
        let mut folders: Vec<PathBuf> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        folders.sort();
        folders
    }

    fn name(folder: &Path) -> String {
        folder.file_name().unwrap().to_string_lossy().into_owned()
    }

    fn read(folder: &Path) -> Scenario {
        let text = std::fs::read_to_string(folder.join("scenario.toml"))
            .unwrap_or_else(|error| panic!("{}: {error}", name(folder)));
        toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", name(folder)))
    }

    impl Scenario {
        fn config(&self) -> Config {
            let defaults = Config::default();
            let (client_id, tenant_id) = (
                self.config.federated_client_id.clone(),
                self.config.federated_tenant_id.clone(),
            );
            let (federated, registries) = match &self.config.federated_registry {
                None => (
                    Federated {
                        client_id,
                        tenant_id,
                        resources: self.config.federated_resources.clone(),
                    },
                    BTreeMap::new(),
                ),
                Some(host) => {
                    let registry = RegistryConfig {
                        client_id,
                        tenant_id,
                        federated: true,
                        ..RegistryConfig::default()
                    };
                    (
                        Federated::default(),
                        BTreeMap::from([(host.clone(), registry)]),
                    )
                }
            };
            Config {
                federated,
                registries,
                azure_cli_tenant: self.config.azure_cli_tenant.clone(),
                strategy: self.config.strategy.as_deref().map(|name| {
                    STRATEGIES
                        .into_iter()
                        .find(|strategy| strategy.name() == name)
                        .unwrap_or_else(|| panic!("no strategy {name}"))
                }),
                allow_node_identity: self.config.allow_node_identity,
                probe: self.config.probe.unwrap_or(defaults.probe),
                authority_host: self
                    .config
                    .authority_host
                    .as_deref()
                    .map(|text| url::Url::parse(text).unwrap()),
                ..defaults
            }
        }

        fn facts(&self, folder: &Path) -> Facts {
            let environment: Environment = self.env.clone().into_iter().collect();
            let facts = Facts::gather(&environment, &Files::under(folder.join("root")));
            match &self.probe {
                None => facts,
                Some(Probe::Answered { status, ms }) => facts.with_probe(ProbeResult::Answered {
                    status: *status,
                    ms: *ms,
                }),
                Some(Probe::NoAnswer { no_answer }) => facts.with_probe(ProbeResult::NoAnswer {
                    reason: no_answer.clone(),
                }),
                Some(Probe::NotMade { not_made }) => facts.with_probe(ProbeResult::NotMade {
                    why: not_made.clone(),
                }),
            }
        }

        /// The selection as `jobcred explain --probe` would have it: with the principal, and what it breaks.
        fn selection(&self, folder: &Path) -> Selection {
            let mut selection = select(&self.facts(folder), &self.config());
            if let (Some(claims), Ok(choice)) = (&self.claims, &selection.outcome) {
                selection
                    .explanation
                    .notices
                    .extend(promise_broken(choice, claims));
                selection.explanation.principal = Some(claims.clone());
            }
            let issued = self
                .token_hours
                .map(|hours| UnixTime::from_secs(-3_600 * hours));
            let old = issued.and_then(|issued| token_of_earlier(issued, UnixTime::from_secs(0)));
            selection.explanation.notices.extend(old);
            selection
        }
    }

    fn check(folder: &Path) -> Vec<String> {
        let scenario = read(folder);
        let expect = &scenario.expect;
        let selection = scenario.selection(folder);
        let explanation = &selection.explanation;
        let mut wrong = Vec::new();
        let mut same = |what: &str, expected: &str, got: &str| {
            if expected != got {
                wrong.push(format!(
                    "{}: {what}: expected {expected:?}, got {got:?}",
                    name(folder)
                ));
            }
        };
        same("strategy", &expect.strategy, &explanation.strategy);
        same("reason", &expect.reason, &explanation.reason);
        let (client_id, code, hint) = match &selection.outcome {
            Ok(choice) => {
                same("choice", &expect.strategy, choice.strategy.name());
                (choice.client_id.clone(), None, String::new())
            }
            Err(error) => {
                assert!(!error.hint.is_empty(), "{}: no way out", name(folder));
                (None, Some(error.code), error.hint.clone())
            }
        };
        same(
            "start error",
            if expect.strategy == "none" {
                &expect.reason
            } else {
                ""
            },
            code.unwrap_or_default(),
        );
        same(
            "client id",
            expect.client_id.as_deref().unwrap_or_default(),
            &client_id.unwrap_or_default(),
        );
        // A start-up error comes as a notice of its code as well, with the way out.
        let notices: BTreeSet<String> = explanation
            .notices
            .iter()
            .filter(|notice| Some(notice.code.as_str()) != code)
            .map(|notice| notice.code.clone())
            .collect();
        same(
            "notices",
            &format!("{:?}", expect.notices),
            &format!("{notices:?}"),
        );
        same(
            "wants_probe",
            &expect.wants_probe.to_string(),
            &wants_probe(&scenario.facts(folder), &scenario.config()).to_string(),
        );
        for (strategy, reason) in &expect.candidates {
            let candidate = explanation
                .candidates
                .iter()
                .find(|candidate| candidate.strategy == *strategy)
                .unwrap_or_else(|| panic!("{}: no candidate {strategy}", name(folder)));
            same(strategy, reason, &candidate.reason);
        }
        let words = explanation.upstream.clone().unwrap_or_default();
        let texts = expect
            .upstream
            .iter()
            .map(|text| (text, &words))
            .chain(
                expect
                    .message
                    .iter()
                    .map(|text| (text, &explanation.message)),
            )
            .chain(expect.hint.iter().map(|text| (text, &hint)));
        let missing: Vec<String> = texts
            .filter(|(text, whole)| !whole.contains(text.as_str()))
            .map(|(text, whole)| format!("{}: {text:?} is not in {whole:?}", name(folder)))
            .collect();
        wrong.extend(missing);
        wrong
    }

    #[test]
    fn every_scenario_comes_out_as_it_says() {
        let folders = folders();
        assert!(folders.len() >= FEWEST, "only {} scenarios", folders.len());
        let wrong: Vec<String> = folders.iter().flat_map(|folder| check(folder)).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn every_scenario_says_why_it_is_there() {
        for folder in folders() {
            let why = read(&folder).why;
            assert!(why.len() > 20 && why.ends_with('.'), "{}", name(&folder));
        }
    }

    #[test]
    fn the_shape_of_an_explanation_is_the_same_everywhere() {
        for folder in folders() {
            let selection = read(&folder).selection(&folder);
            let explanation = &selection.explanation;
            let order: Vec<&str> = explanation
                .candidates
                .iter()
                .map(|candidate| candidate.strategy.as_str())
                .collect();
            assert_eq!(order, STRATEGIES.map(Strategy::name), "{}", name(&folder));
            let chosen: Vec<_> = explanation
                .candidates
                .iter()
                .filter(|candidate| candidate.outcome == Outcome::Chosen)
                .collect();
            match &selection.outcome {
                Ok(choice) => {
                    assert_eq!(chosen.len(), 1, "{}", name(&folder));
                    assert_eq!(chosen[0].strategy, choice.strategy.name());
                    assert_eq!(chosen[0].reason, explanation.reason);
                    assert!(explanation.upstream.is_some());
                }
                Err(error) => {
                    assert!(chosen.is_empty(), "{}", name(&folder));
                    assert_eq!(error.code, explanation.reason);
                    assert_eq!(explanation.upstream, None);
                }
            }
            for text in explanation
                .candidates
                .iter()
                .map(|candidate| &candidate.message)
                .chain(explanation.notices.iter().map(|notice| &notice.message))
                .chain([&explanation.message])
            {
                assert!(text.ends_with('.'), "{}: {text:?}", name(&folder));
            }
        }
    }

    #[test]
    fn every_documented_code_is_reached_and_every_code_is_documented() {
        let mut reached = BTreeSet::new();
        for folder in folders() {
            let explanation = read(&folder).selection(&folder).explanation;
            reached.insert(explanation.reason);
            reached.extend(explanation.candidates.into_iter().map(|it| it.reason));
            reached.extend(explanation.notices.into_iter().map(|it| it.code));
        }
        // A scenario is what is found in one place, and the time is the same in all of them.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        let fault = Clock::with_runtime(UnixTime::default()).fault().unwrap();
        reached.insert(clock_wrong(fault).code);
        reached.insert(roots_not_found("SSL_CERT_FILE names /x, which is not there").code);
        let documented: BTreeSet<String> = [
            reason::CHOSEN,
            reason::PASSED_OVER,
            reason::FAILED,
            reason::NOTICES,
        ]
        .concat()
        .into_iter()
        .map(|(code, _)| code.to_owned())
        .collect();
        let unreached: Vec<_> = documented.difference(&reached).collect();
        let undocumented: Vec<_> = reached.difference(&documented).collect();
        assert!(unreached.is_empty(), "never reached: {unreached:?}");
        assert!(undocumented.is_empty(), "not documented: {undocumented:?}");
    }

    #[test]
    fn no_secret_comes_out() {
        let mut in_play = 0;
        for folder in folders() {
            let scenario = read(&folder);
            for variable in SECRETS {
                if let Some(value) = scenario.env.get(variable).filter(|it| !it.is_empty()) {
                    assert!(
                        value.contains(SECRET_MARK),
                        "{}: {variable} is not marked",
                        name(&folder)
                    );
                    in_play += 1;
                }
            }
            let facts = scenario.facts(&folder);
            let selection = scenario.selection(&folder);
            let mut outputs = vec![
                serde_json::to_string(&selection.explanation).unwrap(),
                format!("{facts:?}"),
                format!("{selection:?}"),
            ];
            if let Err(error) = &selection.outcome {
                outputs.push(format!("{error} {}", error.hint));
            }
            for output in outputs {
                assert!(!output.contains(SECRET_MARK), "{}: {output}", name(&folder));
            }
        }
        assert!(in_play > FEWEST / 2, "hardly any secret in play: {in_play}");
    }
}
