// Checks a log's checkpoints and proofs with the Go project's own implementation of signed notes and
// transparency logs (golang.org/x/mod/sumdb), which shares no code with Buildtrail.
//
// In: lines on standard input, as the test `oracle` of buildtrail-evidence writes them.
// Out: "N checks agree", or the first disagreement and exit code 1.
package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type checker struct {
	verifier note.Verifiers
	checks   int
	root     tlog.Hash
	size     int64
}

func main() {
	c := &checker{}
	input := bufio.NewReaderSize(os.Stdin, 1<<20)
	for number := 1; ; number++ {
		line, err := input.ReadString('\n')
		if line == "" && err != nil {
			break
		}
		if err := c.line(strings.TrimSuffix(line, "\n")); err != nil {
			fmt.Printf("line %d: %v\n", number, err)
			os.Exit(1)
		}
	}
	fmt.Printf("%d checks agree\n", c.checks)
}

func (c *checker) line(line string) error {
	words := strings.Split(line, " ")
	good := words[0] == "good"
	if words[0] == "key" {
		verifier, err := note.NewVerifier(words[1])
		if err != nil {
			return err
		}
		c.verifier = note.VerifierList(verifier)
		return nil
	}
	if !good && words[0] != "bad" {
		return fmt.Errorf("unknown word %q", words[0])
	}
	err := c.check(words[1], words[2:])
	if (err == nil) != good {
		return fmt.Errorf("expected a %s %s, got: %v", words[0], words[1], err)
	}
	c.checks++
	return nil
}

// check says nil if what the words describe is right.
func (c *checker) check(what string, words []string) error {
	switch what {
	case "checkpoint":
		return c.checkpoint(words[0])
	case "inclusion":
		// index, leaf data, path
		index, data, path, err := numbered(words)
		if err != nil {
			return err
		}
		return tlog.CheckRecord(tlog.RecordProof(path), c.size, c.root, index, tlog.RecordHash(data))
	case "consistency":
		// old size, old root, path
		size, root, path, err := numbered(words)
		if err != nil {
			return err
		}
		var old tlog.Hash
		copy(old[:], root)
		return tlog.CheckTree(tlog.TreeProof(path), c.size, c.root, size, old)
	}
	return fmt.Errorf("unknown check %q", what)
}

// checkpoint opens a signed note; what follows is about its tree.
func (c *checker) checkpoint(encoded string) error {
	message, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return err
	}
	opened, err := note.Open(message, c.verifier)
	if err != nil {
		return err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return fmt.Errorf("a checkpoint of %d lines", len(lines))
	}
	if lines[0] != opened.Sigs[0].Name {
		return fmt.Errorf("the origin %q is not the key's name %q", lines[0], opened.Sigs[0].Name)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return err
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return err
	}
	c.size, c.root = size, root
	return nil
}

func numbered(words []string) (number int64, data []byte, path []tlog.Hash, err error) {
	if number, err = strconv.ParseInt(words[0], 10, 64); err != nil {
		return
	}
	if data, err = base64.StdEncoding.DecodeString(words[1]); err != nil {
		return
	}
	joined, err := base64.StdEncoding.DecodeString(words[2])
	for ; err == nil && len(joined) >= tlog.HashSize; joined = joined[tlog.HashSize:] {
		var hash tlog.Hash
		copy(hash[:], joined)
		path = append(path, hash)
	}
	return
}
