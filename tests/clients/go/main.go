// A job's programs in Go, which know nothing of jobcred.
//
// `fetch URL...` fetches pages with the proxy that the environment names, and prints a line of JSON for each: what the page
// says of the way that it came by, or the error.
//
// `ask` gets tokens with Azure's own SDK. Each line of its standard input asks once, and is answered by a line of JSON: whose
// token came of it, or the error. It never prints a token. {"kind": "managed" | "default", "client_id": C?}
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

const scope = "https://storage.azure.com/.default"

type request struct {
	Kind     string `json:"kind"`
	ClientID string `json:"client_id"`
}

type answer struct {
	Oid     *string `json:"oid"`
	Aud     *string `json:"aud"`
	Error   *string `json:"error"`
	Message *string `json:"message"`
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "fetch" {
		for _, url := range os.Args[2:] {
			say(fetched(url))
		}
		return
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		say(asked(lines.Bytes()))
	}
}

func say(line any) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

func fetched(url string) map[string]any {
	way, err := fetch(url)
	if err != nil {
		return map[string]any{"url": url, "way": nil, "error": fmt.Sprintf("%T", err), "message": err.Error()}
	}
	return map[string]any{"url": url, "way": way, "error": nil}
}

func fetch(url string) (string, error) {
	response, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	words := strings.Fields(string(body))
	if response.StatusCode != http.StatusOK || len(words) == 0 {
		return "", errors.New(response.Status)
	}
	return words[len(words)-1], nil
}

func asked(line []byte) answer {
	oid, aud, err := ask(line)
	if err != nil {
		kind, message := fmt.Sprintf("%T", err), err.Error()
		return answer{Error: &kind, Message: &message}
	}
	return answer{Oid: &oid, Aud: &aud}
}

func ask(line []byte) (string, string, error) {
	var wanted request
	if err := json.Unmarshal(line, &wanted); err != nil {
		return "", "", err
	}
	credential, err := credential(wanted)
	if err != nil {
		return "", "", err
	}
	token, err := credential.GetToken(context.Background(), policy.TokenRequestOptions{Scopes: []string{scope}})
	if err != nil {
		return "", "", err
	}
	parts := strings.Split(token.Token, ".")
	if len(parts) != 3 {
		return "", "", errors.New("the token has no three parts")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", "", err
	}
	var claims struct{ Oid, Aud string }
	err = json.Unmarshal(payload, &claims)
	return claims.Oid, claims.Aud, err
}

func credential(wanted request) (azcore.TokenCredential, error) {
	if wanted.Kind == "default" {
		return azidentity.NewDefaultAzureCredential(nil)
	}
	options := azidentity.ManagedIdentityCredentialOptions{}
	if wanted.ClientID != "" {
		options.ID = azidentity.ClientID(wanted.ClientID)
	}
	return azidentity.NewManagedIdentityCredential(&options)
}
