package cli

import (
	"math/rand/v2"
	"strings"
)

// The words of names that are made up. The words are short, plain and kind.
const (
	adjectives = `able agile amber apt blue bold brave bright brisk calm clean clear clever cosy crisp deft
		eager early easy fair fast fine firm fleet fond fresh gentle glad good grand green happy hardy
		honest jolly keen kind late light lively lucky mellow merry mild neat nimble noble plain proud
		quick quiet rapid ready robust round sharp shy silver sleek smart snug sober solid spry steady
		still stout sturdy sunny swift tidy trim true vivid warm wise witty young`
	nouns = `anchor anvil axle badger barge beacon beam bell birch boom bridge brook buoy cable canal
		cedar chain coast cove crane crate dock drum elm falcon ferry finch fjord gale gear girder
		harbor hawk hazel heron hoist hook hull island jetty kestrel lantern ledge lever lift linden
		loom maple mast moor oak otter pier pilot plank pulley quay reef ridge rope rudder sail shore
		skiff sling spar spruce strut swan tern tide tower trolley wharf winch wren`
)

// randomName is a name for a container that nobody named.
func randomName() string {
	pick := func(words string) string {
		list := strings.Fields(words)
		return list[rand.N(len(list))]
	}
	return pick(adjectives) + "-" + pick(nouns)
}
