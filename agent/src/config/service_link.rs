//! Variables that Kubernetes sets for the Services of a namespace ("service links"). For a Service named `jobcred-endpoint` they
//! begin like our own, and one of them is called `JOBCRED_ENDPOINT_PORT`.

use super::keys::{DISABLED_VARIABLE, KEYS};
use super::load::near_misses;
use crate::platform::Environment;

/// Whether Kubernetes has set a variable: a Service's address, `tcp://10.0.0.1:80`. Its other variables have names that no key is
/// near to.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    name.ends_with("_PORT")
        && ["tcp://", "udp://", "sctp://"]
            .iter()
            .any(|scheme| value.starts_with(scheme))
}

/// A sentence for each variable that is ignored: it has the name of a key, and Kubernetes has set it; or it is nearly the switch.
#[must_use]
pub fn ignored_variables(environment: &Environment) -> Vec<String> {
    let misspelt = near_misses(environment)
        .into_iter()
        .filter(|(_, near)| *near == DISABLED_VARIABLE)
        .map(|(name, near)| format!("{name} is ignored. Did you mean {near}?"));
    let variables = KEYS.iter().map(|key| key.variable);
    variables
        .filter(|name| {
            environment
                .get(name)
                .is_some_and(|value| is_service_link(name, value))
        })
        .map(|name| {
            let service = name
                .trim_end_matches("_PORT")
                .to_ascii_lowercase()
                .replace('_', "-");
            format!(
                "{name} is ignored: Kubernetes sets it to the address of the Service `{service}`. \
                 Set `enableServiceLinks: false` in the pod's spec to stop it."
            )
        })
        .chain(misspelt)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::ignored_variables;
    use crate::config::{Config, KEYS};
    use crate::platform::Environment;

    /// All that Kubernetes sets for a Service with a port that has a name and one that has none.
    fn links(service: &str, host: &str) -> Environment {
        let name = service.to_ascii_uppercase().replace('-', "_");
        let mut variables = vec![
            (
                format!("{name}_SERVICE_HOST"),
                host.trim_matches(['[', ']']).to_owned(),
            ),
            (format!("{name}_SERVICE_PORT"), "80".to_owned()),
            (format!("{name}_SERVICE_PORT_HTTP"), "80".to_owned()),
            (format!("{name}_PORT"), format!("tcp://{host}:80")),
        ];
        for (port, protocol) in [(80, "tcp"), (8460, "tcp"), (53, "udp"), (9, "sctp")] {
            let front = format!("{name}_PORT_{port}_{}", protocol.to_ascii_uppercase());
            variables.push((front.clone(), format!("{protocol}://{host}:{port}")));
            variables.push((format!("{front}_PROTO"), protocol.to_owned()));
            variables.push((format!("{front}_PORT"), port.to_string()));
            variables.push((format!("{front}_ADDR"), host.to_owned()));
        }
        variables.into_iter().collect()
    }

    #[test]
    fn c8_service_links_of_any_service_are_no_configuration() {
        let keys = KEYS
            .iter()
            .map(|key| key.variable.to_ascii_lowercase().replace('_', "-"));
        let near = [
            "jobcred",
            "jobcred-endpoint",
            "jobcred-endpoints",
            "jobcred-end-point",
            "jobcred-agent",
        ];
        for service in keys.chain(near.map(str::to_owned)) {
            for host in ["10.0.0.1", "[fd00::1]"] {
                let environment = links(&service, host);
                let config = Config::load(None, &environment, &[]);
                assert_eq!(config, Ok(Config::default()), "{service}");
                let said = ignored_variables(&environment);
                assert_eq!(
                    said.len(),
                    usize::from(service == "jobcred-endpoint"),
                    "{said:?}"
                );
            }
        }
        let said = ignored_variables(&links("jobcred-endpoint", "10.0.0.1")).concat();
        for part in [
            "JOBCRED_ENDPOINT_PORT is ignored",
            "`jobcred-endpoint`",
            "enableServiceLinks: false",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn c8_a_port_is_a_port_and_other_addresses_are_mistakes() {
        let of = |value| {
            Config::load(
                None,
                &Environment::from([("JOBCRED_ENDPOINT_PORT", value)]),
                &[],
            )
        };
        assert_eq!(
            of("8460").map(|config| config.endpoint_port),
            Ok(Some(8460))
        );
        for value in ["http://127.0.0.1:8460", "tcp:8460", "127.0.0.1:8460"] {
            assert!(of(value).is_err(), "{value}");
        }
    }
}
