package main

import (
	"errors"

	"github.com/FerretDB/wire/wirebson"
)

// failure is an error with one of MongoDB's error codes.
type failure struct {
	code    int32
	message string
}

func (f failure) Error() string { return f.message }

func notSupported(what string) error {
	return failure{238, "The MongoDB stand-in does not support " + what + ". Use a MongoDB server for that."}
}

var codeNames = map[int32]string{
	2: "BadValue", 8: "UnknownError", 13: "Unauthorized", 14: "TypeMismatch", 18: "AuthenticationFailed",
	20: "IllegalOperation", 43: "CursorNotFound", 59: "CommandNotFound", 66: "ImmutableField", 238: "NotImplemented",
	11: "UserNotFound", 23: "AlreadyInitialized", 31: "RoleNotFound", 74: "NodeNotFound", 76: "NoReplicationEnabled",
	93: "InvalidReplicaSetConfig", 94: "NotYetInitialized", 103: "NewReplicaSetConfigurationIncompatible",
	10107: "NotWritablePrimary", 51003: "Location51003",
	17: "ProtocolError", 334: "MechanismUnavailable", 73: "InvalidNamespace", 11000: "DuplicateKey",
}

// document is the answer to a command that failed.
func errorReply(err error) *wirebson.Document {
	var f failure
	if !errors.As(err, &f) {
		f = failure{8, err.Error()}
		if errors.Is(err, errUnsupportedValue) {
			f.code = 2
		}
	}
	name := codeNames[f.code]
	if name == "" {
		name = "Location"
	}
	return wirebson.MustDocument("ok", float64(0), "errmsg", f.message, "code", f.code, "codeName", name)
}
