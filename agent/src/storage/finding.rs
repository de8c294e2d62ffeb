//! What was found, and what to do about it.

use jobcred_wire::PrincipalClaims;

use super::{Location, Service};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It works, but somebody should look.
    Warning,
    /// It does not work.
    Failure,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The stable code, one of [`super::code::CODES`].
    pub code: &'static str,
    /// How much it matters.
    pub weight: Weight,
    /// What it is, in one line.
    pub title: String,
    /// What that means, in a few sentences.
    pub explanation: String,
    /// What to do, most likely first.
    pub fixes: Vec<Fix>,
}

/// One thing to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fix {
    /// A sentence.
    pub text: String,
    /// A command for a shell, over several lines; may be none.
    pub command: Option<String>,
}

impl Finding {
    /// Something that does not work.
    #[must_use]
    pub fn failure(
        code: &'static str,
        title: impl Into<String>,
        explanation: impl Into<String>,
    ) -> Self {
        Self {
            code,
            weight: Weight::Failure,
            title: title.into(),
            explanation: explanation.into(),
            fixes: Vec::new(),
        }
    }

    /// Something to look at.
    #[must_use]
    pub fn warning(
        code: &'static str,
        title: impl Into<String>,
        explanation: impl Into<String>,
    ) -> Self {
        Self {
            weight: Weight::Warning,
            ..Self::failure(code, title, explanation)
        }
    }

    /// Adds something to do.
    #[must_use]
    pub fn fix(mut self, text: impl Into<String>) -> Self {
        self.fixes.push(Fix {
            text: text.into(),
            command: None,
        });
        self
    }

    /// Adds something to do by a command.
    #[must_use]
    pub fn fix_by(mut self, text: impl Into<String>, command: impl Into<String>) -> Self {
        self.fixes.push(Fix {
            text: text.into(),
            command: Some(command.into()),
        });
        self
    }
}

/// What the identity shall be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// List and read.
    Read,
    /// Also make, change and delete.
    Write,
}

impl Access {
    /// The least built-in role that allows it.
    #[must_use]
    pub fn role(self) -> &'static str {
        match self {
            Self::Read => "Storage Blob Data Reader",
            Self::Write => "Storage Blob Data Contributor",
        }
    }
}

/// The command that gives a role on the container. What cannot be known from here is in angle brackets.
#[must_use]
pub fn role_assignment(location: &Location, claims: &PrincipalClaims, access: Access) -> String {
    let kind = match claims.kind.as_deref() {
        Some("user") => "  --assignee-principal-type User \\\n",
        Some("app") => "  --assignee-principal-type ServicePrincipal \\\n",
        _ => "",
    };
    format!(
        "az role assignment create \\\n  --assignee-object-id {object_id} \\\n{kind}  --role \"{role}\" \\\n  --scope \
         \"/subscriptions/<subscription>/resourceGroups/<resource-group>/providers/Microsoft.Storage/storageAccounts/{account}\
         /blobServices/default/containers/{container}\"",
        object_id = object_id(claims),
        role = access.role(),
        account = location.account().unwrap_or("<account>"),
        container = location.container(),
    )
}

/// The command that shows where in Azure the account is: the beginning of a scope.
#[must_use]
pub fn scope_of_account(location: &Location) -> String {
    format!(
        "az storage account show --name {} --query id --output tsv",
        location.account().unwrap_or("<account>")
    )
}

/// The command that adds an entry to the access control lists of a path and of everything below it. (`set` would replace them.)
#[must_use]
pub fn access_control_entry(
    location: &Location,
    claims: &PrincipalClaims,
    access: Access,
) -> String {
    let rights = match access {
        Access::Read => "r-x",
        Access::Write => "rwx",
    };
    let path = location.plain_path();
    let path = path.trim_matches('/');
    format!(
        "az storage fs access update-recursive --auth-mode login \\\n  --account-name {account} --file-system {container} \\\n  \
         --path {path} --acl {entry}",
        account = location.account().unwrap_or("<account>"),
        container = location.container(),
        path = quoted(if path.is_empty() { "/" } else { path }),
        entry = quoted(&format!("user:{}:{rights}", object_id(claims))),
    )
}

/// The command that shows what the account's firewall is set to.
#[must_use]
pub fn network_rules(location: &Location) -> String {
    format!(
        "az storage account show --name {} \\\n  --query \"{{public: publicNetworkAccess, default: networkRuleSet.defaultAction}}\"",
        location.account().unwrap_or("<account>")
    )
}

/// The same place by the account's other endpoint.
#[must_use]
pub fn by_other_endpoint(location: &Location) -> String {
    let (from, to) = match location.service() {
        Service::Blob => (".blob.", ".dfs."),
        Service::Dfs => (".dfs.", ".blob."),
    };
    format!(
        "jobcred check {}",
        quoted(&location.to_string().replacen(from, to, 1))
    )
}

fn object_id(claims: &PrincipalClaims) -> &str {
    claims.object_id.as_deref().unwrap_or("<object-id>")
}

/// A word that a POSIX shell takes as it stands.
fn quoted(word: &str) -> String {
    let is_plain = word
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@%=+,".contains(&byte));
    if is_plain && !word.is_empty() {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use jobcred_wire::PrincipalClaims;

    use super::{Access, access_control_entry, by_other_endpoint, role_assignment};
    use crate::storage::{Hints, Location};

    fn location(url: &str) -> Location {
        Location::parse(url, &Hints::default()).unwrap()
    }

    fn claims(kind: &str) -> PrincipalClaims {
        PrincipalClaims {
            object_id: Some("11111111-2222-4333-8444-555555555555".to_owned()),
            kind: Some(kind.to_owned()),
            ..PrincipalClaims::default()
        }
    }

    #[test]
    fn the_role_command_names_the_principal_the_role_and_the_container() {
        let place = location("https://acct.blob.core.windows.net/data/train");
        let command = role_assignment(&place, &claims("app"), Access::Read);
        assert_eq!(
            command.replace("\\\n ", ""),
            "az role assignment create  --assignee-object-id 11111111-2222-4333-8444-555555555555  --assignee-principal-type \
             ServicePrincipal  --role \"Storage Blob Data Reader\"  --scope \"/subscriptions/<subscription>/resourceGroups/\
             <resource-group>/providers/Microsoft.Storage/storageAccounts/acct/blobServices/default/containers/data\""
        );
        let command = role_assignment(&place, &claims("user"), Access::Write);
        assert!(
            command.contains("--assignee-principal-type User "),
            "{command}"
        );
        assert!(
            command.contains("Storage Blob Data Contributor"),
            "{command}"
        );
        let command = role_assignment(&place, &PrincipalClaims::default(), Access::Write);
        assert!(
            command.contains("--assignee-object-id <object-id> "),
            "{command}"
        );
        assert!(!command.contains("principal-type"), "{command}");
    }

    #[test]
    fn a_path_is_one_word_of_the_command() {
        let place = location("abfss://data@acct.dfs.core.windows.net/a%20b/it's%3B%20rm/");
        let command = access_control_entry(&place, &claims("app"), Access::Read);
        assert!(command.contains("--path 'a b/it'\\''s; rm' "), "{command}");
        assert!(
            command.ends_with("user:11111111-2222-4333-8444-555555555555:r-x"),
            "{command}"
        );
        let root = access_control_entry(
            &location("abfss://data@acct.dfs.core.windows.net"),
            &claims("app"),
            Access::Write,
        );
        assert!(root.contains("--path / "), "{root}");
    }

    #[test]
    fn the_other_endpoint_is_the_same_place() {
        let place = location("https://acct.dfs.core.windows.net/data/x");
        assert_eq!(
            by_other_endpoint(&place),
            "jobcred check https://acct.blob.core.windows.net/data/x"
        );
    }
}
