package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/FerretDB/wire/wirebson"
)

// change turns a document into its successor. insert is true for the document that an upsert is about to insert.
type change func(doc *wirebson.Document, insert bool) (*wirebson.Document, error)

// compileUpdate prepares an update: a replacement, a pipeline of $set, $addFields and $unset, or operators on whole
// top-level fields. Other operators are errForward; other pipelines are a mistake that is told, as FerretDB knows none.
func compileUpdate(update any) (change, error) {
	switch u := update.(type) {
	case *wirebson.Array:
		return compilePipeline(u)
	case *wirebson.Document:
		if strings.HasPrefix(u.Command(), "$") {
			return compileOperators(u)
		}
		for name := range u.All() {
			if strings.HasPrefix(name, "$") {
				return nil, errForward
			}
		}
		return func(doc *wirebson.Document, _ bool) (*wirebson.Document, error) {
			next := wirebson.MakeDocument(u.Len() + 1)
			if id := doc.Get("_id"); id != nil && u.Get("_id") == nil {
				put(next, "_id", id)
			}
			for name, value := range u.All() {
				put(next, name, value)
			}
			return next, nil
		}, nil
	}
	return nil, errForward
}

func compileOperators(update *wirebson.Document) (change, error) {
	type step struct {
		operator, name string
		operand        any
	}
	var steps []step
	for operator, fields := range update.All() {
		doc, ok := fields.(*wirebson.Document)
		if !ok {
			return nil, errForward
		}
		for name, operand := range doc.All() {
			if name == "" || strings.ContainsAny(name, ".$") {
				return nil, errForward
			}
			switch operator {
			case "$set", "$setOnInsert", "$unset":
			case "$inc":
				if _, ok := integer(operand); !ok {
					if _, ok := operand.(float64); !ok {
						return nil, errForward
					}
				}
			default:
				return nil, errForward
			}
			steps = append(steps, step{operator, name, operand})
		}
	}
	return func(doc *wirebson.Document, insert bool) (*wirebson.Document, error) {
		next := clone(doc)
		for _, s := range steps {
			switch s.operator {
			case "$set":
				put(next, s.name, s.operand)
			case "$setOnInsert":
				if insert {
					put(next, s.name, s.operand)
				}
			case "$unset":
				next.Remove(s.name)
			case "$inc":
				sum, err := add(next.Get(s.name), s.operand)
				if err != nil {
					return nil, err
				}
				put(next, s.name, sum)
			}
		}
		return next, nil
	}, nil
}

func add(have, by any) (any, error) {
	if have == nil {
		return by, nil
	}
	x, xInt := integer(have)
	y, yInt := integer(by)
	if xInt && yInt {
		_, xLong := have.(int64)
		_, yLong := by.(int64)
		if sum := x + y; xLong || yLong || int64(int32(sum)) != sum {
			return sum, nil
		}
		return int32(x + y), nil
	}
	fx, ok := have.(float64)
	if !ok {
		if !xInt {
			return nil, failure{14, "Cannot apply $inc to a value of non-numeric type"}
		}
		fx = float64(x)
	}
	fy, ok := by.(float64)
	if !ok {
		fy = float64(y)
	}
	return fx + fy, nil
}

func compilePipeline(stages *wirebson.Array) (change, error) {
	var steps []func(doc *wirebson.Document, now time.Time) (*wirebson.Document, error)
	for item := range stages.Values() {
		stage, ok := item.(*wirebson.Document)
		if !ok || stage.Len() != 1 {
			return nil, failure{40323, "A pipeline stage specification object must contain exactly one field."}
		}
		name, spec := stage.GetByIndex(0)
		switch name {
		case "$set", "$addFields":
			fields, ok := spec.(*wirebson.Document)
			if !ok {
				return nil, failure{40272, "$set specification stage must be an object"}
			}
			if err := checkFields(fields); err != nil {
				return nil, err
			}
			steps = append(steps, func(doc *wirebson.Document, now time.Time) (*wirebson.Document, error) {
				return setFields(doc, doc, fields, now)
			})
		case "$unset":
			var names []string
			switch s := spec.(type) {
			case string:
				names = []string{s}
			case *wirebson.Array:
				for n := range s.Values() {
					text, _ := n.(string)
					names = append(names, text)
				}
			}
			for _, n := range names {
				if n == "" || strings.ContainsAny(n, ".$") {
					return nil, notSupported("$unset of a nested field in an update pipeline")
				}
			}
			steps = append(steps, func(doc *wirebson.Document, _ time.Time) (*wirebson.Document, error) {
				next := clone(doc)
				for _, n := range names {
					next.Remove(n)
				}
				return next, nil
			})
		default:
			return nil, notSupported("the stage " + name + " in an update pipeline")
		}
	}
	return func(doc *wirebson.Document, _ bool) (next *wirebson.Document, err error) {
		now := time.Now().UTC().Truncate(time.Millisecond)
		for _, step := range steps {
			if doc, err = step(doc, now); err != nil {
				return nil, err
			}
		}
		return doc, nil
	}, nil
}

func checkFields(fields *wirebson.Document) error {
	for name, value := range fields.All() {
		if name == "" || strings.ContainsAny(name, ".$") {
			return notSupported(fmt.Sprintf("the path %q in an update pipeline", name))
		}
		if sub, ok := value.(*wirebson.Document); ok && !isExpression(sub) {
			if err := checkFields(sub); err != nil {
				return err
			}
		}
	}
	return nil
}

func isExpression(doc *wirebson.Document) bool { return strings.HasPrefix(doc.Command(), "$") }

// setFields is $set of a pipeline: unlike the update operator it merges an object into an object that is there.
func setFields(root, doc, fields *wirebson.Document, now time.Time) (*wirebson.Document, error) {
	next := clone(doc)
	for name, spec := range fields.All() {
		if sub, ok := spec.(*wirebson.Document); ok && !isExpression(sub) {
			base, _ := next.Get(name).(*wirebson.Document)
			if base == nil {
				base = wirebson.MakeDocument(sub.Len())
			}
			merged, err := setFields(root, base, sub, now)
			if err != nil {
				return nil, err
			}
			put(next, name, merged)
			continue
		}
		value, err := evaluate(root, spec, now)
		if err != nil {
			return nil, err
		}
		if value != nil {
			put(next, name, value)
		}
	}
	return next, nil
}

// evaluate computes an expression: constants, "$field", $$NOW, $literal and $add. A missing field is nil.
func evaluate(root *wirebson.Document, spec any, now time.Time) (any, error) {
	switch s := spec.(type) {
	case string:
		if s == "$$NOW" {
			return now, nil
		}
		if strings.HasPrefix(s, "$") {
			if strings.ContainsAny(s[1:], ".$") || len(s) == 1 {
				return nil, notSupported(fmt.Sprintf("the expression %q in an update pipeline", s))
			}
			return root.Get(s[1:]), nil
		}
		return s, nil
	case *wirebson.Array:
		out := wirebson.MakeArray(s.Len())
		for item := range s.Values() {
			value, err := evaluate(root, item, now)
			if err != nil {
				return nil, err
			}
			if value == nil {
				value = wirebson.Null
			}
			if err := out.Add(value); err != nil {
				return nil, err
			}
		}
		return out, nil
	case *wirebson.Document:
		if !isExpression(s) {
			out := wirebson.MakeDocument(s.Len())
			for name, item := range s.All() {
				value, err := evaluate(root, item, now)
				if err != nil {
					return nil, err
				}
				if value != nil {
					put(out, name, value)
				}
			}
			return out, nil
		}
		operator, operand := s.GetByIndex(0)
		if s.Len() == 1 && operator == "$literal" {
			return operand, nil
		}
		if terms, ok := operand.(*wirebson.Array); ok && s.Len() == 1 && operator == "$add" {
			return evaluateAdd(root, terms, now)
		}
		return nil, notSupported("the expression " + operator + " in an update pipeline")
	}
	return spec, nil
}

func evaluateAdd(root *wirebson.Document, terms *wirebson.Array, now time.Time) (any, error) {
	var date *time.Time
	var sum any = int32(0)
	for item := range terms.Values() {
		value, err := evaluate(root, item, now)
		if err != nil {
			return nil, err
		}
		if isNull(value) {
			return wirebson.Null, nil
		}
		if t, ok := value.(time.Time); ok && date == nil {
			date = &t
			continue
		}
		if sum, err = add(sum, value); err != nil {
			return nil, failure{14, "$add only supports numeric or date types"}
		}
	}
	if date == nil {
		return sum, nil
	}
	ms, ok := integer(sum)
	if !ok {
		f, _ := sum.(float64)
		ms = int64(f)
	}
	return date.Add(time.Duration(ms) * time.Millisecond), nil
}

// clone copies the fields of a document; the values are shared, and never changed in place.
func clone(doc *wirebson.Document) *wirebson.Document {
	next := wirebson.MakeDocument(doc.Len() + 1)
	for name, value := range doc.All() {
		_ = next.Add(name, value) // a value that came from a document is of a valid type
	}
	return next
}

// put sets a field, in its place where it is there.
func put(doc *wirebson.Document, name string, value any) {
	if doc.Get(name) != nil {
		_ = doc.Replace(name, value)
		return
	}
	_ = doc.Add(name, value)
}
