//! Programs to paste, with the address that the reader knows this server by. None holds a secret.

/// A program to paste.
pub struct Sample {
    pub name: &'static str,
    pub text: String,
}

/// One for each language.
pub fn samples(base: &str) -> Vec<Sample> {
    let sample = |name, text: &str| Sample { name, text: text.replace("BASE", base) };
    vec![
        sample("curl", CURL),
        sample("Python", PYTHON),
        sample("JavaScript", JAVASCRIPT),
        sample("Rust", RUST),
        sample("Go", GO),
    ]
}

const CURL: &str = r#"curl BASE/v1/verifications \
  -H "Authorization: Bearer $LISTMILL_KEY" \
  -H "Content-Type: application/json" \
  -d '{"email": "somebody@example.com"}'"#;

const PYTHON: &str = r#"import json, os, urllib.request

request = urllib.request.Request(
    "BASE/v1/verifications",
    data=json.dumps({"email": "somebody@example.com"}).encode(),
    headers={
        "Authorization": "Bearer " + os.environ["LISTMILL_KEY"],
        "Content-Type": "application/json",
    },
)
with urllib.request.urlopen(request) as response:
    print(json.load(response))"#;

const JAVASCRIPT: &str = r#"const response = await fetch("BASE/v1/verifications", {
  method: "POST",
  headers: {
    Authorization: `Bearer ${process.env.LISTMILL_KEY}`,
    "Content-Type": "application/json",
  },
  body: JSON.stringify({ email: "somebody@example.com" }),
});
console.log(await response.json());"#;

const RUST: &str = r#"// reqwest with the features "blocking" and "json"; serde_json
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let result: serde_json::Value = reqwest::blocking::Client::new()
        .post("BASE/v1/verifications")
        .bearer_auth(std::env::var("LISTMILL_KEY")?)
        .json(&serde_json::json!({ "email": "somebody@example.com" }))
        .send()?
        .error_for_status()?
        .json()?;
    println!("{result}");
    Ok(())
}"#;

const GO: &str = r#"package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	body := strings.NewReader(`{"email": "somebody@example.com"}`)
	request, err := http.NewRequest("POST", "BASE/v1/verifications", body)
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("LISTMILL_KEY"))
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(answer))
}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_the_address_and_no_secret() {
        for sample in samples("https://api.example.com") {
            assert!(sample.text.contains("https://api.example.com/v1/verifications"));
            assert!(sample.text.contains("LISTMILL_KEY") && !sample.text.contains("BASE"));
        }
    }
}
