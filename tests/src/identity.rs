//! What the managed-identity doubles have in common: the identities of a machine, and the forms of a token answer.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::macros::format_description;

use crate::clock;
use crate::token::{IssuedToken, Principal};

/// The identities assigned to one compute.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identities {
    /// The system-assigned identity, when enabled.
    pub system: Option<Principal>,
    /// The user-assigned ones, in their order.
    pub user_assigned: Vec<Principal>,
}

impl Default for Identities {
    /// One user-assigned identity: the usual Azure ML cluster.
    fn default() -> Self {
        Self::user_assigned(1)
    }
}

impl Identities {
    /// Only a system-assigned identity.
    #[must_use]
    pub fn system() -> Self {
        Self {
            system: Some(Principal::application()),
            user_assigned: Vec::new(),
        }
    }

    /// So many user-assigned identities, and no other.
    #[must_use]
    pub fn user_assigned(count: usize) -> Self {
        Self {
            system: None,
            user_assigned: std::iter::repeat_with(Principal::application)
                .take(count)
                .collect(),
        }
    }

    /// The system-assigned identity, else the first user-assigned: what `DEFAULT_IDENTITY_CLIENT_ID` names.
    #[must_use]
    pub fn first(&self) -> Option<&Principal> {
        self.system.as_ref().or_else(|| self.user_assigned.first())
    }

    /// The identity of that client id, in any case.
    #[must_use]
    pub fn by_client_id(&self, client_id: &str) -> Option<&Principal> {
        self.all()
            .find(|known| known.client_id.eq_ignore_ascii_case(client_id))
    }

    /// The identity of that object id, in any case.
    #[must_use]
    pub fn by_object_id(&self, object_id: &str) -> Option<&Principal> {
        self.all()
            .find(|known| known.object_id.eq_ignore_ascii_case(object_id))
    }

    /// The user-assigned identity of that ARM id (see [`Identities::resource_id`]), in any case.
    #[must_use]
    pub fn by_resource_id(&self, resource_id: &str) -> Option<&Principal> {
        self.user_assigned
            .iter()
            .find(|known| Self::resource_id(known).eq_ignore_ascii_case(resource_id))
    }

    /// The ARM id that the doubles give a user-assigned identity: the client id serves as its name.
    #[must_use]
    pub fn resource_id(principal: &Principal) -> String {
        format!(
            "/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/tests/providers/\
             Microsoft.ManagedIdentity/userAssignedIdentities/{}",
            principal.client_id
        )
    }

    fn all(&self) -> impl Iterator<Item = &Principal> {
        self.system.iter().chain(&self.user_assigned)
    }
}

/// How `expires_on` and `expires_in` are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpiryForm {
    /// JSON integers: the Azure ML endpoints.
    Integer,
    /// Strings of seconds: IMDS and App Service.
    Text,
    /// `06/20/2019 02:57:58 +00:00` and no `expires_in`: the 2017 App Service on Linux.
    LinuxDate,
    /// `1/16/2020 5:24:12 AM +00:00` and no `expires_in`: the same on Windows.
    WindowsDate,
    /// `2019-06-20T02:57:58Z` and no `expires_in`.
    Rfc3339,
}

impl ExpiryForm {
    /// The body of a success. `with_expires_in`: where the dialect has that field.
    pub(crate) fn body(
        self,
        issued: &IssuedToken,
        now: i64,
        with_expires_in: bool,
        client_id: Option<&str>,
    ) -> Value {
        let left = issued.expires_on.saturating_sub(now);
        let (expiry, remaining) = match self {
            Self::Integer => (json!(issued.expires_on), Some(json!(left))),
            Self::Text => (
                json!(issued.expires_on.to_string()),
                Some(json!(left.to_string())),
            ),
            Self::LinuxDate | Self::WindowsDate | Self::Rfc3339 => {
                (json!(self.date(issued.expires_on)), None)
            }
        };
        let mut body = json!({
            "access_token": issued.token,
            "expires_on": expiry,
            "resource": issued.audience,
            "token_type": "Bearer",
        });
        if let Value::Object(fields) = &mut body {
            if let Some(remaining) = remaining.filter(|_| with_expires_in) {
                fields.insert("expires_in".into(), remaining);
            }
            if let Some(client_id) = client_id {
                fields.insert("client_id".into(), json!(client_id));
            }
        }
        body
    }

    fn date(self, unix: i64) -> String {
        let moment = clock::at(unix);
        let linux = format_description!("[month]/[day]/[year] [hour]:[minute]:[second] +00:00");
        let windows = format_description!(
            "[month padding:none]/[day padding:none]/[year] [hour repr:12 padding:none]:[minute]:[second] [period] +00:00"
        );
        let rfc3339 = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
        match self {
            Self::WindowsDate => moment.format(&windows),
            Self::Rfc3339 => moment.format(&rfc3339),
            Self::LinuxDate | Self::Integer | Self::Text => moment.format(&linux),
        }
        .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_platforms_write_them() {
        assert_eq!(
            ExpiryForm::LinuxDate.date(1_560_999_478),
            "06/20/2019 02:57:58 +00:00"
        );
        assert_eq!(
            ExpiryForm::WindowsDate.date(1_579_151_892),
            "1/16/2020 5:18:12 AM +00:00"
        );
        assert_eq!(
            ExpiryForm::Rfc3339.date(1_560_999_478),
            "2019-06-20T02:57:58Z"
        );
    }
}
