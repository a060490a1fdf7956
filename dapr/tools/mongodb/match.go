package main

import (
	"bytes"
	"cmp"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/FerretDB/wire/wirebson"
)

// errForward says that the stand-in does not answer a command by itself: FerretDB does.
var errForward = errors.New("left to FerretDB")

// matcher says whether a document passes a filter.
type matcher func(doc *wirebson.Document) bool

// filter is a compiled query: what it says about _id, which an index answers, and the test that every candidate passes.
type filter struct {
	match matcher
	// ids: the only possible values of _id, when pinned
	ids    []any
	pinned bool
	// bounds on an _id of one type, "string" or "objectId"; "" where there is none
	rangeType string
	bounds    []bound
	// equalities seed a document that an upsert inserts
	equalities []field
	empty      bool
}

type bound struct {
	operator string // SQL: > >= < <=
	text     string
}

type field struct {
	name  string
	value any
}

// compileFilter prepares a query of the kinds that the stand-in answers itself: comparisons of whole top-level fields
// with scalars, $in, $exists, $regex, $and, $or, $nor, and Dapr's $expr on _ttl. Anything else is errForward.
func compileFilter(query *wirebson.Document) (*filter, error) {
	f := &filter{}
	m, err := f.compile(query, true)
	if err != nil {
		return nil, err
	}
	f.match = m
	f.empty = query == nil || query.Len() == 0
	return f, nil
}

func (f *filter) compile(query *wirebson.Document, conjunct bool) (matcher, error) {
	var all []matcher
	if query == nil {
		return func(*wirebson.Document) bool { return true }, nil
	}
	for name, value := range query.All() {
		m, err := f.compileField(name, value, conjunct)
		if err != nil {
			return nil, err
		}
		if m != nil {
			all = append(all, m)
		}
	}
	return matchAll(all), nil
}

// matchAll matches the documents that all of them match.
func matchAll(all []matcher) matcher {
	return func(doc *wirebson.Document) bool {
		for _, m := range all {
			if !m(doc) {
				return false
			}
		}
		return true
	}
}

func (f *filter) compileField(name string, value any, conjunct bool) (matcher, error) {
	switch name {
	case "$comment":
		return nil, nil
	case "$and", "$or", "$nor":
		array, ok := value.(*wirebson.Array)
		if !ok || array.Len() == 0 {
			return nil, errForward
		}
		var parts []matcher
		for item := range array.Values() {
			sub, ok := item.(*wirebson.Document)
			if !ok {
				return nil, errForward
			}
			m, err := f.compile(sub, conjunct && name == "$and")
			if err != nil {
				return nil, err
			}
			parts = append(parts, m)
		}
		return func(doc *wirebson.Document) bool {
			for _, m := range parts {
				if m(doc) != (name == "$and") {
					return name == "$or"
				}
			}
			return name != "$or"
		}, nil
	case "$expr":
		ttl := ttlExpression(value)
		if ttl == "" {
			return nil, errForward
		}
		return func(doc *wirebson.Document) bool {
			expires, ok := doc.Get(ttl).(time.Time)
			return isNull(doc.Get(ttl)) || (ok && !expires.Before(time.Now().Truncate(time.Millisecond)))
		}, nil
	}
	if name == "" || name[0] == '$' || strings.Contains(name, ".") {
		return nil, errForward
	}
	operators, ok := value.(*wirebson.Document)
	if !ok {
		if regex, ok := value.(wirebson.Regex); ok {
			return compileRegex(name, regex.Pattern, regex.Options)
		}
		return f.compileOperator(name, "$eq", value, conjunct)
	}
	if operators.Len() == 0 || !strings.HasPrefix(operators.Command(), "$") {
		return nil, errForward
	}
	var all []matcher
	for operator, operand := range operators.All() {
		if operator == "$options" {
			continue
		}
		var m matcher
		var err error
		if operator == "$regex" {
			options, _ := operators.Get("$options").(string)
			switch p := operand.(type) {
			case string:
				m, err = compileRegex(name, p, options)
			case wirebson.Regex:
				m, err = compileRegex(name, p.Pattern, p.Options+options)
			default:
				err = errForward
			}
		} else {
			m, err = f.compileOperator(name, operator, operand, conjunct)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return matchAll(all), nil
}

func (f *filter) compileOperator(name, operator string, operand any, conjunct bool) (matcher, error) {
	pin := conjunct && name == "_id"
	switch operator {
	case "$eq", "$ne":
		if !comparable(operand) {
			return nil, errForward
		}
		if operator == "$eq" && conjunct {
			f.equalities = append(f.equalities, field{name, operand})
		}
		if operator == "$eq" && pin {
			f.pin([]any{operand})
		}
		return func(doc *wirebson.Document) bool {
			return anyEqual(doc.Get(name), operand) == (operator == "$eq")
		}, nil
	case "$in", "$nin":
		array, ok := operand.(*wirebson.Array)
		if !ok {
			return nil, errForward
		}
		values := make([]any, 0, array.Len())
		strs := make(map[string]struct{}, array.Len())
		for item := range array.Values() {
			if !comparable(item) {
				return nil, errForward
			}
			if s, ok := item.(string); ok {
				strs[s] = struct{}{}
			}
			values = append(values, item)
		}
		if operator == "$in" && pin {
			f.pin(values)
		}
		return func(doc *wirebson.Document) bool {
			have := doc.Get(name)
			if s, ok := have.(string); ok {
				_, in := strs[s]
				return in == (operator == "$in")
			}
			for _, value := range values {
				if anyEqual(have, value) {
					return operator == "$in"
				}
			}
			return operator == "$nin"
		}, nil
	case "$gt", "$gte", "$lt", "$lte":
		if !comparable(operand) || isNull(operand) {
			return nil, errForward
		}
		if t := typeName(operand); pin && (t == "string" || t == "objectId") && (f.rangeType == "" || f.rangeType == t) {
			f.rangeType = t
			text, _ := sortText(operand)
			f.bounds = append(f.bounds, bound{map[string]string{"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}[operator], text})
		}
		return func(doc *wirebson.Document) bool {
			return anyOf(doc.Get(name), func(have any) bool {
				order, ok := compare(have, operand)
				if !ok {
					return false
				}
				switch operator {
				case "$gt":
					return order > 0
				case "$gte":
					return order >= 0
				case "$lt":
					return order < 0
				}
				return order <= 0
			})
		}, nil
	case "$exists":
		want := truthy(operand)
		return func(doc *wirebson.Document) bool { return (doc.Get(name) != nil) == want }, nil
	}
	return nil, errForward
}

func (f *filter) pin(ids []any) {
	if f.pinned && len(f.ids) <= len(ids) {
		return // the shorter list is enough: the matcher still tests both
	}
	f.pinned, f.ids = true, ids
}

func compileRegex(name, pattern, options string) (matcher, error) {
	for _, o := range options {
		if !strings.ContainsRune("ims", o) {
			return nil, errForward
		}
	}
	if options != "" {
		pattern = "(?" + options + ")" + pattern
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, errForward
	}
	return func(doc *wirebson.Document) bool {
		return anyOf(doc.Get(name), func(have any) bool {
			s, ok := have.(string)
			return ok && re.MatchString(s)
		})
	}, nil
}

// ttlExpression returns the field F of {$or: [{$eq: [{$ifNull: ["$F", null]}, null]}, {$gte: ["$F", "$$NOW"]}]}, which
// Dapr adds to each of its reads, in this and in the shape of older releases ({$eq: ["$F", null]}); else "".
func ttlExpression(expr any) string {
	or := arrayAt(expr, "$or")
	if or == nil || or.Len() != 2 {
		return ""
	}
	eq, gte := arrayAt(or.Get(0), "$eq"), arrayAt(or.Get(1), "$gte")
	if eq == nil || gte == nil || eq.Len() != 2 || gte.Len() != 2 || !isNull(eq.Get(1)) || gte.Get(1) != any("$$NOW") {
		return ""
	}
	name, _ := gte.Get(0).(string)
	path := eq.Get(0)
	if ifNull := arrayAt(path, "$ifNull"); ifNull != nil && ifNull.Len() == 2 && isNull(ifNull.Get(1)) {
		path = ifNull.Get(0)
	}
	if path != any(name) || len(name) < 2 || name[0] != '$' || strings.ContainsAny(name[1:], "$.") {
		return ""
	}
	return name[1:]
}

func arrayAt(value any, name string) *wirebson.Array {
	doc, ok := value.(*wirebson.Document)
	if !ok || doc.Len() != 1 {
		return nil
	}
	array, _ := doc.Get(name).(*wirebson.Array)
	return array
}

func isNull(value any) bool {
	_, null := value.(wirebson.NullType)
	return value == nil || null
}

func truthy(value any) bool {
	switch v := value.(type) {
	case bool:
		return v
	case int32:
		return v != 0
	case int64:
		return v != 0
	case float64:
		return v != 0
	}
	return !isNull(value)
}

// comparable: scalars that compare knows.
func comparable(value any) bool {
	switch value.(type) {
	case string, wirebson.ObjectID, int32, int64, float64, bool, time.Time, wirebson.NullType:
		return true
	}
	return false
}

// anyOf tests a field's value, and, where it is an array, its elements.
func anyOf(have any, test func(any) bool) bool {
	if array, ok := have.(*wirebson.Array); ok {
		for item := range array.Values() {
			if test(item) {
				return true
			}
		}
		return false
	}
	return test(have)
}

func anyEqual(have, want any) bool {
	return anyOf(have, func(have any) bool {
		if isNull(want) {
			return isNull(have)
		}
		order, ok := compare(have, want)
		return ok && order == 0
	})
}

// compare orders two scalars of the same kind; ok is false where they are of different kinds.
func compare(a, b any) (order int, ok bool) {
	switch a := a.(type) {
	case string:
		b, ok := b.(string)
		return strings.Compare(a, b), ok
	case wirebson.ObjectID:
		b, ok := b.(wirebson.ObjectID)
		return bytes.Compare(a[:], b[:]), ok
	case time.Time:
		b, ok := b.(time.Time)
		return cmp.Compare(a.UnixMilli(), b.UnixMilli()), ok
	case bool:
		b, ok := b.(bool)
		if a == b {
			return 0, ok
		}
		if a {
			return 1, ok
		}
		return -1, ok
	case float64:
		switch b := b.(type) {
		case float64:
			return cmp.Compare(a, b), true
		case int32:
			return cmp.Compare(a, float64(b)), true
		case int64:
			return cmp.Compare(a, float64(b)), true
		}
		return 0, false
	}
	x, isInt := integer(a)
	if !isInt {
		return 0, false
	}
	if y, isInt := integer(b); isInt {
		return cmp.Compare(x, y), true
	}
	if y, isFloat := b.(float64); isFloat {
		return cmp.Compare(float64(x), y), true
	}
	return 0, false
}

func integer(value any) (int64, bool) {
	switch v := value.(type) {
	case int32:
		return int64(v), true
	case int64:
		return v, true
	}
	return 0, false
}

// sameValue: equal in value, type and order of fields, so that an update with it changes nothing.
func sameValue(a, b any) bool {
	switch a := a.(type) {
	case *wirebson.Document:
		b, ok := b.(*wirebson.Document)
		if !ok || a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			an, av := a.GetByIndex(i)
			bn, bv := b.GetByIndex(i)
			if an != bn || !sameValue(av, bv) {
				return false
			}
		}
		return true
	case *wirebson.Array:
		b, ok := b.(*wirebson.Array)
		if !ok || a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !sameValue(a.Get(i), b.Get(i)) {
				return false
			}
		}
		return true
	case wirebson.Binary:
		b, ok := b.(wirebson.Binary)
		return ok && a.Subtype == b.Subtype && bytes.Equal(a.B, b.B)
	case time.Time:
		b, ok := b.(time.Time)
		return ok && a.UnixMilli() == b.UnixMilli()
	}
	switch b.(type) {
	case *wirebson.Document, *wirebson.Array, wirebson.Binary:
		return false
	}
	return a == b
}

// sortText is what SQLite's ->> gives for an _id of type string or objectId.
func sortText(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case wirebson.ObjectID:
		text, _ := scalarText(v)
		return strings.Trim(text, `"`), true
	}
	return "", false
}
