// Renders a Modelfile's TEMPLATE with Go's own text/template, as Ollama does for a chat.
//
// Standard input: a line {"template": "…", "system": "…"}, then one JSON list of messages a line. Standard output: one JSON
// string a line. As Ollama's server: where a conversation brings no system message, the Modelfile's SYSTEM is put before it
// (server/routes.go, ChatHandler); turns of one role that follow each other are joined (template/template.go, collate).
package main

import (
	"bufio"
	"encoding/json"
	"log"
	"os"
	"strings"
	"text/template"
)

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

func collate(messages []message) (string, []*message) {
	var system []string
	var joined []*message
	for i := range messages {
		one := messages[i]
		if one.Role == "system" {
			system = append(system, one.Content)
		}
		if len(joined) > 0 && joined[len(joined)-1].Role == one.Role {
			joined[len(joined)-1].Content += "\n\n" + one.Content
		} else {
			joined = append(joined, &one)
		}
	}
	return strings.Join(system, "\n\n"), joined
}

func main() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	decoder := json.NewDecoder(lines)
	var modelfile struct {
		Template string `json:"template"`
		System   string `json:"system"`
	}
	if err := decoder.Decode(&modelfile); err != nil {
		log.Fatal(err)
	}
	parsed, err := template.New("").Option("missingkey=zero").Parse(modelfile.Template)
	if err != nil {
		log.Fatal(err)
	}
	output := bufio.NewWriter(os.Stdout)
	defer output.Flush()
	encoder := json.NewEncoder(output)
	encoder.SetEscapeHTML(false)
	for decoder.More() {
		var messages []message
		if err := decoder.Decode(&messages); err != nil {
			log.Fatal(err)
		}
		if modelfile.System != "" && (len(messages) == 0 || messages[0].Role != "system") {
			messages = append([]message{{Role: "system", Content: modelfile.System}}, messages...)
		}
		system, joined := collate(messages)
		var text strings.Builder
		values := map[string]any{"System": system, "Messages": joined, "Response": ""}
		if err := parsed.Execute(&text, values); err != nil {
			log.Fatal(err)
		}
		if err := encoder.Encode(text.String()); err != nil {
			log.Fatal(err)
		}
	}
}
