{{/* Names begin with the release's: `helm install fashion` gives fashion-order, fashion-gateway … */}}
{{- define "jangteo.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels of every object. `app` is what the Dapr dashboard shows. Takes (dict "root" $ "app" NAME). */}}
{{- define "jangteo.labels" -}}
app: {{ .app }}
app.kubernetes.io/name: {{ .app }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: jangteo
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* What selects the pods of one app. */}}
{{- define "jangteo.selector" -}}
app.kubernetes.io/name: {{ .app }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{/* Labels of a pod: without versions, for a pod is replaced when one of its labels changes. */}}
{{- define "jangteo.podLabels" -}}
app: {{ .app }}
app.kubernetes.io/part-of: jangteo
{{ include "jangteo.selector" . }}
{{- end -}}

{{/* The service table, dapr/dapr.yaml, as JSON: {common, apps}. */}}
{{- define "jangteo.topology" -}}
{{- $topology := .Files.Get "files/dapr/dapr.yaml" | fromYaml -}}
{{- if not $topology.apps }}{{ fail "the chart's files are not complete: files/dapr/dapr.yaml is missing. Install it from a clone, or from what `helm package` made of one." }}{{ end -}}
{{- $known := dict -}}
{{- range $topology.apps }}{{ $_ := set $known .appID true }}{{ end -}}
{{- range $app, $_ := .Values.services -}}
  {{- if not (hasKey $known $app) }}{{ fail (printf "services.%s: there is no such service; there are %s" $app (keys $known | sortAlpha | join ", ")) }}{{ end -}}
{{- end -}}
{{- $topology | toJson -}}
{{- end -}}

{{/* The settings of one service, as JSON: .Values.defaults with .Values.services.APP over them. Takes (dict "root" $ "app" NAME). */}}
{{- define "jangteo.settings" -}}
{{- $own := index .root.Values.services .app | default dict -}}
{{- mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy $own) | toJson -}}
{{- end -}}

{{/* Whether a service is scaled by its processor time. Takes settings and root; answers "true" or nothing. */}}
{{- define "jangteo.scaled" -}}
{{- $own := .settings.autoscaling.enabled -}}
{{- if kindIs "bool" $own }}{{ if $own }}true{{ end }}{{ else if .root.Values.autoscaling.enabled }}true{{ end -}}
{{- end -}}

{{- define "jangteo.image" -}}
{{- with .Values.image.registry }}{{ . }}/{{ end }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion -}}
{{- end -}}

{{/* --- servers ------------------------------------------------------------------------------------------------------ */}}

{{/* The kind of server that a component of this type uses: mysql of state.mysql. */}}
{{- define "jangteo.kind" -}}
{{- last (splitList "." .) -}}
{{- end -}}

{{/* Where a kind of server is: HOST:PORT, of somebody else's or of ours. Takes (dict "root" $ "kind" KIND). */}}
{{- define "jangteo.address" -}}
{{- $server := index .root.Values.servers .kind | default dict -}}
{{- $name := include "jangteo.name" .root -}}
{{- if $server.address -}}
{{- $server.address -}}
{{- else if $server.enabled -}}
  {{- if eq .kind "mongodb" -}}
    {{- $members := list -}}
    {{- range $i := until (int $server.replicas) -}}
      {{- $members = append $members (printf "%s-mongodb-%d.%s-mongodb.%s.svc.%s:27017" $name $i $name $.root.Release.Namespace $.root.Values.clusterDomain) -}}
    {{- end -}}
    {{- join "," $members -}}
  {{- else -}}
    {{- printf "%s-%s:%s" $name .kind (dict "mysql" "3306" "redis" "6379" | dig .kind "") -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether this kind of server is ours to run. */}}
{{- define "jangteo.ours" -}}
{{- $server := index .root.Values.servers .kind | default dict -}}
{{- if and $server.enabled (not $server.address) }}true{{ end -}}
{{- end -}}

{{/* --- components --------------------------------------------------------------------------------------------------- */}}

{{/*
The Dapr components of .Values.backend, as JSON: {components: [Component, …]}. As with `npm start -- --backend`: folders under
components/ or single files, with commas between; of files with one name the last one counts. Four things differ from one machine:
addresses, paths, where secrets are kept, and that a server may be somebody else's.
*/}}
{{- define "jangteo.components" -}}
{{- /* Made once: every template asks for them, some for each service. */ -}}
{{- if not (hasKey .Values "madeComponents") }}{{ $_ := set .Values "madeComponents" (include "jangteo.makeComponents" .) }}{{ end -}}
{{- .Values.madeComponents -}}
{{- end -}}

{{- define "jangteo.makeComponents" -}}
{{- $files := dict -}}
{{- range $layer := splitList "," .Values.backend -}}
  {{- $layer = trim $layer -}}
  {{- $pattern := printf "files/components/%s/*.yaml" $layer -}}
  {{- if hasSuffix ".yaml" $layer }}{{ $pattern = printf "files/components/%s" $layer }}{{ end -}}
  {{- $found := $.Files.Glob $pattern -}}
  {{- if not $found }}{{ fail (printf "backend: components/%s is not there" $layer) }}{{ end -}}
  {{- range $path, $_ := $found }}{{ $_ := set $files (base $path) ($.Files.Get $path) }}{{ end -}}
{{- end -}}
{{- range $name, $component := .Values.components -}}
  {{- $_ := set $files (printf "%s.yaml" $name) (ternary ($component | toYaml) "" (not (empty $component))) -}}
{{- end -}}
{{- $name := include "jangteo.name" . -}}
{{- $stores := .Values.secrets.stores.existing | default (printf "%s-stores" $name) -}}
{{- $components := list -}}
{{- range $file, $text := $files -}}
{{- range $text := regexSplit "(?m)^---\\s*$" $text -1 -}}
  {{- $document := fromYaml $text -}}
  {{- if and (eq ($document.kind | default "") "Component") (ne $document.spec.type "secretstores.local.env") -}}
    {{- $component := $document.metadata.name -}}
    {{- $kind := include "jangteo.kind" $document.spec.type -}}
    {{- $address := include "jangteo.address" (dict "root" $ "kind" $kind) -}}
    {{- $own := index $.Values.metadata $component | default dict -}}
    {{- $items := list -}}
    {{- $said := dict -}}
    {{- range $item := $document.spec.metadata -}}
      {{- $_ := set $said $item.name true -}}
      {{- if hasKey $own $item.name -}}
        {{- if not (kindIs "invalid" (index $own $item.name)) -}}
          {{- $items = append $items (include "jangteo.item" (dict "name" $item.name "value" (index $own $item.name)) | fromJson) -}}
        {{- end -}}
      {{- else if $item.secretKeyRef -}}
        {{- $items = append $items (dict "name" $item.name "secretKeyRef" (dict "name" $stores "key" $item.secretKeyRef.key)) -}}
      {{- else -}}
        {{- $value := toString $item.value -}}
        {{- if regexMatch "(127\\.0\\.0\\.1|localhost)[:/]" $value -}}
          {{- if not $address }}{{ fail (printf "%s: the component %s (%s) wants a server. Say where it is: servers.%s.address, or metadata.%s.%s%s" $file $component $document.spec.type $kind $component $item.name (has $kind (list "mysql" "mongodb" "redis") | ternary (printf "; or let the chart run one: servers.%s.enabled" $kind) "")) }}{{ end -}}
          {{- $value = regexReplaceAll "(127\\.0\\.0\\.1|localhost)(:\\d+)?" $value $address -}}
        {{- end -}}
        {{- if and (has (printf "%s %s" $document.spec.type $item.name) (list "state.sqlite connectionString" "bindings.localstorage rootPath")) (not (hasPrefix "/" $value)) -}}
          {{- $value = printf "/data/%s" $value -}}
        {{- end -}}
        {{- $items = append $items (dict "name" $item.name "value" $value) -}}
      {{- end -}}
    {{- end -}}
    {{- range $item, $value := $own -}}
      {{- if not (or (hasKey $said $item) (kindIs "invalid" $value)) -}}
        {{- $items = append $items (include "jangteo.item" (dict "name" $item "value" $value) | fromJson) -}}
      {{- end -}}
    {{- end -}}
    {{- if and (eq $document.spec.type "state.mongodb") (include "jangteo.ours" (dict "root" $ "kind" "mongodb")) (not (hasKey $own "params")) -}}
      {{- $items = append $items (dict "name" "params" "value" "?replicaSet=rs0") -}}
    {{- end -}}
    {{- $login := false -}}
    {{- range $items }}{{ if .secretKeyRef }}{{ $login = true }}{{ end }}{{ end -}}
    {{- if and (not $login) (include "jangteo.ours" (dict "root" $ "kind" $kind)) }}{{ fail (printf "%s: the component %s has no password, and the chart's %s lets nobody in without one. components/polyglot has them; backend: %s,polyglot/%s would take that file from there." $file $component $kind $.Values.backend $file) }}{{ end -}}
    {{- $spec := mergeOverwrite (deepCopy $document.spec) (dict "metadata" $items) -}}
    {{- $labels := include "jangteo.labels" (dict "root" $ "app" $component) | fromYaml -}}
    {{- $rendered := dict "apiVersion" $document.apiVersion "kind" "Component" "metadata" (dict "name" $component "labels" $labels) "spec" $spec -}}
    {{- if $document.scopes }}{{ $_ := set $rendered "scopes" $document.scopes }}{{ end -}}
    {{- $_ := set $rendered "auth" (dict "secretStore" "kubernetes") -}}
    {{- $components = append $components $rendered -}}
  {{- end -}}
{{- end -}}
{{- end -}}
{{- dict "components" $components | toJson -}}
{{- end -}}

{{/* A metadata item of the values: a text, or {secretKeyRef: {name, key}}. */}}
{{- define "jangteo.item" -}}
{{- if kindIs "map" .value }}{{ mergeOverwrite (dict "name" .name) .value | toJson }}{{ else }}{{ dict "name" .name "value" (toString .value) | toJson }}{{ end -}}
{{- end -}}

{{/* Those of them that one app may use, as JSON {components}. Takes (dict "root" $ "app" NAME). */}}
{{- define "jangteo.componentsOf" -}}
{{- $app := .app -}}
{{- $mine := list -}}
{{- range (include "jangteo.components" .root | fromJson).components -}}
  {{- if or (not .scopes) (has $app .scopes) }}{{ $mine = append $mine . }}{{ end -}}
{{- end -}}
{{- dict "components" $mine | toJson -}}
{{- end -}}

{{/* "true" if one of an app's components writes files of its own, for which its sidecar gets a volume at /data. */}}
{{- define "jangteo.writesFiles" -}}
{{- range (include "jangteo.componentsOf" . | fromJson).components -}}
{{- range .spec.metadata }}{{ if hasPrefix "/data/" (toString .value) }}true{{ end }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Those of them that are stores, as dapr/prepare.ts reads them: JSON {components}. Takes (dict "components" LIST). */}}
{{- define "jangteo.stores" -}}
{{- $stores := list -}}
{{- range .components -}}
  {{- if hasPrefix "state." .spec.type }}{{ $stores = append $stores (set . "metadata" (dict "name" .metadata.name)) }}{{ end -}}
{{- end -}}
{{- dict "components" $stores | toJson -}}
{{- end -}}

{{/* The environment in which dapr/prepare.ts finds the secrets of some components: one variable for each key. */}}
{{- define "jangteo.secretEnv" -}}
{{- $keys := dict -}}
{{- range .components -}}
  {{- range .spec.metadata }}{{ if .secretKeyRef }}{{ $_ := set $keys .secretKeyRef.key .secretKeyRef }}{{ end }}{{ end -}}
{{- end -}}
{{- range $key, $reference := $keys }}
- name: {{ $key }}
  valueFrom: { secretKeyRef: { name: {{ $reference.name }}, key: {{ $key }} } }
{{- end }}
{{- end -}}

{{/* --- pods ---------------------------------------------------------------------------------------------------------- */}}

{{- define "jangteo.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
{{- if .group }}
fsGroup: {{ .group }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "jangteo.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* A probe: the values' numbers, and where they name no way of asking, an HTTP GET. Takes (dict "probe" … "path" … "port" …). */}}
{{- define "jangteo.probe" -}}
{{- $probe := omit .probe "enabled" -}}
{{- if not (or $probe.exec $probe.httpGet $probe.tcpSocket $probe.grpc) -}}
  {{- $probe = set (omit $probe "path") "httpGet" (dict "path" ($probe.path | default .path) "port" .port) -}}
{{- end -}}
{{- $probe | toYaml -}}
{{- end -}}

{{/* A value that is kept: given, else as it is in the cluster, else made up. Takes root, secret, key, given, length. */}}
{{- define "jangteo.kept" -}}
{{- $there := (lookup "v1" "Secret" .root.Release.Namespace .secret).data | default dict -}}
{{- if .given }}{{ .given }}{{ else if hasKey $there .key }}{{ index $there .key | b64dec }}{{ else }}{{ randAlphaNum (.length | default 32) }}{{ end -}}
{{- end -}}
