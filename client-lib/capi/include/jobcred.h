/* jobcred.h: Azure tokens and registry credentials from the jobcred agent of this job.
 *
 *     jobcred_client *client = jobcred_client_new(NULL);
 *     jobcred_error *error = NULL;
 *     jobcred_token *token = jobcred_get_token(client, "https://storage.azure.com/", NULL, &error);
 *     if (token != NULL) {
 *         use(jobcred_token_access_token(token), jobcred_token_expires_on(token));
 *     } else {
 *         complain(jobcred_error_message(error));
 *     }
 *     jobcred_token_free(token);
 *     jobcred_error_free(error);
 *     jobcred_client_free(client);
 *
 * Rules that hold for every function:
 *
 * - A pointer to one of this library's types is NULL, or one that this library returned and that was not freed. What a
 *   function returns as `*_new` or `jobcred_get_*` belongs to the caller, who frees it with the `*_free` of its type, once.
 *   Text that an accessor returns belongs to the object and lives as long as it does.
 * - Text is UTF-8 that ends with a zero byte. NULL where something is needed, and text that is no UTF-8, are an error of the
 *   kind JOBCRED_KIND_INVALID_REQUEST, never a crash.
 * - A client may be used by any number of threads at once. Everything else may be read by any number of threads at once, and
 *   changed or freed by one while no other uses it.
 * - All of it can be used after a fork, in the parent and in the child, without exec: a child asks the agent anew, on
 *   connections of its own.
 * - The library starts no thread, prints nothing, handles no signal, raises no SIGPIPE and leaves errno as it was. It needs
 *   nothing to be set up. A call waits for the agent for as long as `jobcred_settings_set_timeout` says, 60 seconds when it
 *   says nothing. A thread that is cancelled during a call ends after it.
 * - Tokens and passwords are wiped from memory when they are freed.
 * - Later versions add functions and kinds of errors; they change none. `libjobcred.so.0` stands for that promise.
 *
 * This file is made from the library's sources; changes belong there.
 */

#ifndef JOBCRED_H
#define JOBCRED_H

#include <stdbool.h>
#include <stdint.h>

/**
 * What went wrong, as one of a few kinds that each have a different next step.
 *
 * Later versions may add kinds: treat one that you do not know as `JOBCRED_KIND_INTERNAL`.
 */
typedef enum {
  /**
   * No error: the kind of NULL.
   */
  JOBCRED_KIND_NONE = 0,
  /**
   * The request itself is wrong; correct it.
   */
  JOBCRED_KIND_INVALID_REQUEST = 1,
  /**
   * Policy says no; ask whoever configured the agent.
   */
  JOBCRED_KIND_DENIED = 2,
  /**
   * No agent, or one that has no way to get such a token; another credential may have one.
   */
  JOBCRED_KIND_UNAVAILABLE = 3,
  /**
   * The issuer refused; a role, an assignment or a setting in Azure has to change.
   */
  JOBCRED_KIND_REJECTED = 4,
  /**
   * The submitting user's session has ended; the job has to be submitted again.
   */
  JOBCRED_KIND_GRANT_ENDED = 5,
  /**
   * This registry is to be read without credentials.
   */
  JOBCRED_KIND_ANONYMOUS = 6,
  /**
   * Try again, after `jobcred_error_retry_after` seconds.
   */
  JOBCRED_KIND_TRANSIENT = 7,
  /**
   * A fault of the agent or of this library; report it with the request id.
   */
  JOBCRED_KIND_INTERNAL = 8,
} jobcred_kind;

/**
 * A client of the agent. It looks for the agent when it is first needed and again for every new connection, so that it may
 * be made before the agent runs and outlives a restart of it. It keeps tokens until the agent said to ask again.
 */
typedef struct jobcred_client jobcred_client;

/**
 * Why there is no answer. Holds no token and no secret.
 */
typedef struct jobcred_error jobcred_error;

/**
 * Options of a token request. One object may serve any number of requests.
 *
 * A setter takes a copy; NULL takes the option back. A mistake is reported by the request that uses the options.
 */
typedef struct jobcred_options jobcred_options;

/**
 * A user name and password for a container registry.
 */
typedef struct jobcred_registry_credential jobcred_registry_credential;

/**
 * Settings of a client, each with a default that suits a job.
 */
typedef struct jobcred_settings jobcred_settings;

/**
 * A token.
 */
typedef struct jobcred_token jobcred_token;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library, for example `0.1.0`. Never NULL, never freed.
 */
const char *jobcred_version(void);

/**
 * Settings with every default in place.
 */
jobcred_settings *jobcred_settings_new(void);

/**
 * The agent's socket; nothing else is looked at then. NULL, the default, means `JOBCRED_SOCKET`, else the first place that
 * answers of `/run/jobcred/agent.sock`, `$XDG_RUNTIME_DIR/jobcred/agent.sock` and `/tmp/jobcred-$UID/agent.sock`.
 */
void jobcred_settings_set_socket(jobcred_settings *settings,
                                 const char *path);

/**
 * One more user, besides one's own and root, whose agent is trusted. The default is `JOBCRED_AGENT_UID`.
 */
void jobcred_settings_set_agent_uid(jobcred_settings *settings,
                                    uint32_t uid);

/**
 * How long a call may take in all, in milliseconds; 0 means the default of 60 seconds, which is longer than the agent itself
 * waits for Azure.
 */
void jobcred_settings_set_timeout(jobcred_settings *settings,
                                  uint32_t milliseconds);

/**
 * Frees settings; clients made from them keep theirs. NULL is fine.
 */
void jobcred_settings_free(jobcred_settings *settings);

/**
 * A client; `settings` may be NULL. The environment is read here, not later. Returns NULL only after a fault of the
 * library; every function takes a client that is NULL for an error.
 */
jobcred_client *jobcred_client_new(const jobcred_settings *settings);

/**
 * Frees a client, with the tokens it keeps and its connections. NULL is fine.
 */
void jobcred_client_free(jobcred_client *client);

/**
 * Options that ask for nothing special.
 */
jobcred_options *jobcred_options_new(void);

/**
 * Asks for the identity with this application (client) id instead of the job's own, where the agent's policy allows it. At
 * most one of client id, object id and resource id may be set.
 */
void jobcred_options_set_client_id(jobcred_options *options,
                                   const char *client_id);

/**
 * The same by the object id of the identity's service principal.
 */
void jobcred_options_set_object_id(jobcred_options *options, const char *object_id);

/**
 * The same by the identity's Azure resource id.
 */
void jobcred_options_set_resource_id(jobcred_options *options, const char *resource_id);

/**
 * The tenant that should issue the token; refused where the identity cannot leave its own.
 */
void jobcred_options_set_tenant_id(jobcred_options *options, const char *tenant_id);

/**
 * A claims challenge from a resource, as JSON text. Such a request always goes to the agent, and past its memory.
 */
void jobcred_options_set_claims(jobcred_options *options,
                                const char *claims);

/**
 * The shortest life left that the caller can use, in seconds; 0 takes it back.
 */
void jobcred_options_set_min_validity(jobcred_options *options, uint64_t seconds);

/**
 * Frees options. NULL is fine.
 */
void jobcred_options_free(jobcred_options *options);

/**
 * A token for a resource, for example `https://storage.azure.com/`; `options` may be NULL.
 *
 * It comes from memory when there is a good one, so call this for every use. Threads that want the same token at the same
 * time make one request between them. Returns NULL for an error, which is left in `*error` unless `error` is NULL; without
 * one, `*error` is NULL afterwards.
 */
jobcred_token *jobcred_get_token(const jobcred_client *client,
                                 const char *resource,
                                 const jobcred_options *options,
                                 jobcred_error **error);

/**
 * The same for a scope, for example `https://storage.azure.com/.default`.
 */
jobcred_token *jobcred_get_token_for_scope(const jobcred_client *client,
                                           const char *scope,
                                           const jobcred_options *options,
                                           jobcred_error **error);

/**
 * The bearer token itself: what goes behind `Authorization: Bearer `. NULL for NULL.
 */
const char *jobcred_token_access_token(const jobcred_token *token);

/**
 * The token's type; always `Bearer` today. NULL for NULL.
 */
const char *jobcred_token_type(const jobcred_token *token);

/**
 * The resource the token is for, as the issuer was asked for it. NULL for NULL.
 */
const char *jobcred_token_resource(const jobcred_token *token);

/**
 * The client id that the token was said to belong to; NULL when nobody said so.
 */
const char *jobcred_token_client_id(const jobcred_token *token);

/**
 * When the token ends, in unix seconds. 0 for NULL.
 */
int64_t jobcred_token_expires_on(const jobcred_token *token);

/**
 * From when on the library will ask for a newer one, in unix seconds; never after the end. 0 for NULL.
 */
int64_t jobcred_token_refresh_on(const jobcred_token *token);

/**
 * Frees a token and wipes it. NULL is fine.
 */
void jobcred_token_free(jobcred_token *token);

/**
 * A credential for a container registry, by its login server, for example `myregistry.azurecr.io`. Errors as for
 * `jobcred_get_token`; a registry that needs no credential is one, of the kind `JOBCRED_KIND_ANONYMOUS`.
 */
jobcred_registry_credential *jobcred_get_registry_credential(const jobcred_client *client,
                                                             const char *server,
                                                             jobcred_error **error);

/**
 * Makes the agent drop the credential that it holds for a registry, after the registry has refused it. Returns whether it
 * did; errors as for `jobcred_get_token`.
 */
bool jobcred_erase_registry_credential(const jobcred_client *client,
                                       const char *server,
                                       jobcred_error **error);

/**
 * The login server, lower case. NULL for NULL.
 */
const char *jobcred_registry_credential_server(const jobcred_registry_credential *credential);

/**
 * The user name that container clients must send. NULL for NULL.
 */
const char *jobcred_registry_credential_username(const jobcred_registry_credential *credential);

/**
 * The password. NULL for NULL.
 */
const char *jobcred_registry_credential_secret(const jobcred_registry_credential *credential);

/**
 * When the credential ends, in unix seconds. 0 for NULL.
 */
int64_t jobcred_registry_credential_expires_on(const jobcred_registry_credential *credential);

/**
 * When to ask again, in unix seconds; never after the end. 0 for NULL.
 */
int64_t jobcred_registry_credential_refresh_on(const jobcred_registry_credential *credential);

/**
 * Frees a credential and wipes it. NULL is fine.
 */
void jobcred_registry_credential_free(jobcred_registry_credential *credential);

/**
 * What kind of error this is; `JOBCRED_KIND_NONE` for NULL.
 */
jobcred_kind jobcred_error_kind(const jobcred_error *error);

/**
 * The kind in the words of the agent's protocol, for example `grant_ended`, fit for a log. NULL for NULL. Never freed.
 */
const char *jobcred_error_code(const jobcred_error *error);

/**
 * What happened, as one line. NULL for NULL.
 */
const char *jobcred_error_message(const jobcred_error *error);

/**
 * What a person can do next, as one line; NULL when nothing is known.
 */
const char *jobcred_error_hint(const jobcred_error *error);

/**
 * Seconds after which another try makes sense; -1 when nothing is known.
 */
int64_t jobcred_error_retry_after(const jobcred_error *error);

/**
 * The agent's id of the request, under which its log has the whole story; NULL when the agent was not reached.
 */
const char *jobcred_error_request_id(const jobcred_error *error);

/**
 * Frees an error. NULL is fine.
 */
void jobcred_error_free(jobcred_error *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* JOBCRED_H */
