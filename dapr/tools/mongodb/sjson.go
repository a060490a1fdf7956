package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/FerretDB/wire/wirebson"
)

// FerretDB keeps each document as one JSON text: the values, and under "$s" their BSON types and the order of the
// fields. Its own package for that is internal, so this is a second implementation of the same format (FerretDB
// v1.24.2, internal/handler/sjson); TestFerretDBReadsWhatWeWrite holds the two together.

type schema struct {
	Properties map[string]*element `json:"p"`
	Keys       []string            `json:"$k"`
}

type element struct {
	Type    string     `json:"t"`
	Schema  *schema    `json:"$s,omitempty"`
	Options *string    `json:"o,omitempty"`
	Items   []*element `json:"i,omitempty"`
	Subtype *byte      `json:"s,omitempty"`
}

var errUnsupportedValue = errors.New("the stand-in cannot keep NaN, Infinity, Decimal128 and field names that start with $")

// encodeDocument returns the stored form of a document.
func encodeDocument(doc *wirebson.Document) (string, error) {
	data := bytes.NewBuffer(make([]byte, 0, 512))
	types := bytes.NewBuffer(make([]byte, 0, 256))
	for name := range doc.All() {
		if len(name) > 0 && name[0] == '$' {
			return "", errUnsupportedValue
		}
	}
	if err := writeDocument(data, types, doc); err != nil {
		return "", err
	}
	var out bytes.Buffer
	out.Grow(data.Len() + types.Len() + 8)
	out.WriteString(`{"$s":`)
	out.Write(types.Bytes())
	if doc.Len() > 0 {
		out.WriteByte(',')
	}
	out.Write(data.Bytes()[1:])
	return out.String(), nil
}

func writeDocument(data, types *bytes.Buffer, doc *wirebson.Document) error {
	data.WriteByte('{')
	if doc.Len() == 0 {
		data.WriteByte('}')
		types.WriteString("{}")
		return nil
	}
	types.WriteString(`{"p":{`)
	i := 0
	for name, value := range doc.All() {
		if i > 0 {
			data.WriteByte(',')
			types.WriteByte(',')
		}
		i++
		key := quote(name)
		data.Write(key)
		data.WriteByte(':')
		types.Write(key)
		types.WriteByte(':')
		if err := writeValue(data, types, value); err != nil {
			return err
		}
	}
	types.WriteString(`},"$k":`)
	keys, err := json.Marshal(doc.FieldNames())
	if err != nil {
		return err
	}
	types.Write(keys)
	types.WriteByte('}')
	data.WriteByte('}')
	return nil
}

func writeValue(data, types *bytes.Buffer, value any) error {
	switch v := value.(type) {
	case wirebson.AnyDocument:
		doc, err := v.Decode()
		if err != nil {
			return err
		}
		types.WriteString(`{"t":"object","$s":`)
		if err := writeDocument(data, types, doc); err != nil {
			return err
		}
		types.WriteByte('}')
		return nil
	case wirebson.AnyArray:
		array, err := v.Decode()
		if err != nil {
			return err
		}
		data.WriteByte('[')
		types.WriteString(`{"t":"array","i":[`)
		for i, item := range array.All() {
			if i > 0 {
				data.WriteByte(',')
				types.WriteByte(',')
			}
			if err := writeValue(data, types, item); err != nil {
				return err
			}
		}
		data.WriteByte(']')
		types.WriteString("]}")
		return nil
	case wirebson.Binary:
		types.WriteString(`{"t":"binData","s":` + strconv.Itoa(int(v.Subtype)) + `}`)
	case wirebson.Regex:
		types.WriteString(`{"t":"regex","o":` + string(quote(v.Options)) + `}`)
	default:
		name := typeName(value)
		if name == "" {
			return errUnsupportedValue
		}
		types.WriteString(`{"t":"` + name + `"}`)
	}
	text, err := scalarText(value)
	if err != nil {
		return err
	}
	data.WriteString(text)
	return nil
}

// typeName is the format's name of a scalar's type, or "" of a value that it has no place for.
func typeName(value any) string {
	switch value.(type) {
	case float64:
		return "double"
	case string:
		return "string"
	case wirebson.Binary:
		return "binData"
	case wirebson.ObjectID:
		return "objectId"
	case bool:
		return "bool"
	case time.Time:
		return "date"
	case wirebson.NullType:
		return "null"
	case wirebson.Regex:
		return "regex"
	case int32:
		return "int"
	case wirebson.Timestamp:
		return "timestamp"
	case int64:
		return "long"
	}
	return ""
}

// scalarText is the JSON text of a scalar, byte for byte as FerretDB writes it: the unique index on _id holds this text.
func scalarText(value any) (string, error) {
	switch v := value.(type) {
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return "", errUnsupportedValue
		}
		b, err := json.Marshal(v)
		return string(b), err
	case string:
		return string(quote(v)), nil
	case wirebson.Binary:
		return `"` + base64.StdEncoding.EncodeToString(v.B) + `"`, nil
	case wirebson.ObjectID:
		return `"` + hex.EncodeToString(v[:]) + `"`, nil
	case bool:
		return strconv.FormatBool(v), nil
	case time.Time:
		return strconv.FormatInt(v.UnixMilli(), 10), nil
	case wirebson.NullType:
		return "null", nil
	case wirebson.Regex:
		return string(quote(v.Pattern)), nil
	case int32:
		return strconv.FormatInt(int64(v), 10), nil
	case wirebson.Timestamp:
		return strconv.FormatUint(uint64(v), 10), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	}
	return "", errUnsupportedValue
}

func quote(s string) []byte {
	b, _ := json.Marshal(s) // a string always has a JSON form
	return b
}

// decodeDocument reads the stored form of a document, all levels.
func decodeDocument(text []byte) (*wirebson.Document, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, fmt.Errorf("stored document: %w", err)
	}
	types, err := schemas.get(raw["$s"])
	if err != nil {
		return nil, fmt.Errorf("stored document's types: %w", err)
	}
	return buildDocument(raw, types)
}

// schemas remembers what was read last: the documents of a collection mostly have the same fields.
var schemas schemaCache

type schemaCache struct {
	mu    sync.RWMutex
	known map[string]*schema
}

// maxSchemas bounds the cache; where documents differ that much, remembering does not pay.
const maxSchemas = 1000

func (c *schemaCache) get(text []byte) (*schema, error) {
	c.mu.RLock()
	known := c.known[string(text)]
	c.mu.RUnlock()
	if known != nil {
		return known, nil
	}
	types := &schema{}
	if err := json.Unmarshal(text, types); err != nil {
		return nil, err
	}
	if len(text) > 4096 {
		return types, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxSchemas {
		c.known = map[string]*schema{}
	}
	c.known[string(text)] = types
	return types, nil
}

func buildDocument(raw map[string]json.RawMessage, types *schema) (*wirebson.Document, error) {
	if types == nil {
		types = &schema{}
	}
	doc := wirebson.MakeDocument(len(types.Keys))
	for _, name := range types.Keys {
		value, err := buildValue(raw[name], types.Properties[name])
		if err != nil {
			return nil, fmt.Errorf("stored field %q: %w", name, err)
		}
		if err := doc.Add(name, value); err != nil {
			return nil, err
		}
	}
	return doc, nil
}

func buildValue(raw json.RawMessage, el *element) (any, error) {
	if el == nil || raw == nil {
		return nil, errors.New("value or type missing")
	}
	switch el.Type {
	case "object":
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(raw, &fields); err != nil {
			return nil, err
		}
		return buildDocument(fields, el.Schema)
	case "array":
		var items []json.RawMessage
		if err := json.Unmarshal(raw, &items); err != nil {
			return nil, err
		}
		if len(items) != len(el.Items) {
			return nil, errors.New("array and its types differ in length")
		}
		array := wirebson.MakeArray(len(items))
		for i, item := range items {
			value, err := buildValue(item, el.Items[i])
			if err != nil {
				return nil, err
			}
			if err := array.Add(value); err != nil {
				return nil, err
			}
		}
		return array, nil
	case "double":
		return strconv.ParseFloat(string(raw), 64)
	case "string":
		return unquote(raw)
	case "binData":
		text, err := unquote(raw)
		if err != nil {
			return nil, err
		}
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil || el.Subtype == nil {
			return nil, errors.Join(errors.New("binary"), err)
		}
		return wirebson.Binary{B: b, Subtype: wirebson.BinarySubtype(*el.Subtype)}, nil
	case "objectId":
		var id wirebson.ObjectID
		text, err := unquote(raw)
		if err != nil {
			return nil, err
		}
		if n, err := hex.Decode(id[:], []byte(text)); err != nil || n != len(id) {
			return nil, errors.Join(errors.New("object id"), err)
		}
		return id, nil
	case "bool":
		return strconv.ParseBool(string(raw))
	case "date":
		ms, err := strconv.ParseInt(string(raw), 10, 64)
		return time.UnixMilli(ms).UTC(), err
	case "null":
		return wirebson.Null, nil
	case "regex":
		pattern, err := unquote(raw)
		if err != nil || el.Options == nil {
			return nil, errors.Join(errors.New("regular expression"), err)
		}
		return wirebson.Regex{Pattern: pattern, Options: *el.Options}, nil
	case "int":
		n, err := strconv.ParseInt(string(raw), 10, 32)
		return int32(n), err
	case "timestamp":
		n, err := strconv.ParseUint(string(raw), 10, 64)
		return wirebson.Timestamp(n), err
	case "long":
		return strconv.ParseInt(string(raw), 10, 64)
	}
	return nil, fmt.Errorf("unknown type %q", el.Type)
}

func unquote(raw json.RawMessage) (string, error) {
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}
