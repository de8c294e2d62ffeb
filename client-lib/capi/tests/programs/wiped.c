/* No memory that is given back holds a token or a password: this program's own free() looks. Usage: wiped SOCKET */
#define _GNU_SOURCE
#include <malloc.h>

#include "support.h"

extern void __libc_free(void *);
extern void *__libc_malloc(size_t);

static int is_looking;
static int found;
static int blocks;

static void look(const void *block)
{
    size_t size = malloc_usable_size((void *)block);
    blocks++;
    if (memmem(block, size, "t0ken-of-the-double", 19) != NULL || memmem(block, size, "s3cret-of-the-double", 20) != NULL) {
        found++;
    }
}

void free(void *block)
{
    if (block != NULL && is_looking) {
        look(block);
    }
    __libc_free(block);
}

/* The library's realloc() might leave a copy behind as well. */
void *realloc(void *block, size_t size)
{
    void *next = __libc_malloc(size);
    if (block != NULL && next != NULL) {
        size_t old = malloc_usable_size(block);
        memcpy(next, block, old < size ? old : size);
        free(block);
    }
    return next;
}

int main(int argc, char **argv)
{
    jobcred_client *client;
    jobcred_token *token;
    jobcred_registry_credential *credential;
    char *sample;

    CHECK(argc == 2);
    is_looking = 1;
    /* It does see one. */
    sample = strdup("a t0ken-of-the-double b");
    free(sample);
    CHECK(found == 1);
    found = 0;

    client = client_at(argv[1], 0);
    token = jobcred_get_token(client, "https://storage.azure.com/", NULL, NULL);
    CHECK(SAME(jobcred_token_access_token(token), "t0ken-of-the-double"));
    credential = jobcred_get_registry_credential(client, "myreg.azurecr.io", NULL);
    CHECK(SAME(jobcred_registry_credential_secret(credential), "s3cret-of-the-double"));
    blocks = 0;
    jobcred_token_free(token);
    jobcred_registry_credential_free(credential);
    jobcred_client_free(client);
    CHECK(blocks > 6);
    if (found > 0) {
        fprintf(stderr, "%d blocks were given back with a secret in them\n", found);
    }
    CHECK(found == 0);
    return 0;
}
