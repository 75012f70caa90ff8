{{- define "ld.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "ld.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "ld.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "ld.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels by which a part is selected: (dict "root" $ "component" "worker") */}}
{{- define "ld.selector" -}}
app.kubernetes.io/name: {{ include "ld.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "ld.labels" -}}
{{ include "ld.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: loaddensity
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "ld.podMeta" -}}
labels:
  {{- include "ld.labels" . | nindent 2 }}
  {{- with .part.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .part.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "ld.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- define "ld.tokenSecret" -}}
{{- default (printf "%s-token" (include "ld.fullname" .)) .Values.token.existingSecret -}}
{{- end -}}

{{- define "ld.tlsSecret" -}}
{{- default (printf "%s-tls" (include "ld.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}

{{- define "ld.claim" -}}
{{- default (printf "%s-results" (include "ld.fullname" .)) .Values.results.existingClaim -}}
{{- end -}}

{{/* Where workers find the master. */}}
{{- define "ld.masterAddress" -}}
{{- default (printf "%s-master" (include "ld.fullname" .)) .Values.master.address -}}
{{- end -}}

{{/* Nothing is given: the built-in document runs, against the chart's own target. */}}
{{- define "ld.isDemo" -}}
{{- if and (eq .Values.mode "run") (not .Values.document) (not .Values.documentFrom.configMap) (not .Values.documentFrom.path) -}}true{{- end -}}
{{- end -}}

{{- define "ld.hasTarget" -}}
{{- if or .Values.target.enabled (include "ld.isDemo" .) -}}true{{- end -}}
{{- end -}}

{{- define "ld.targetUrl" -}}
{{- printf "http://%s:8080" (default (printf "%s-target" (include "ld.fullname" .)) .Values.target.address) -}}
{{- end -}}

{{/* Long enough for open requests to finish, results to be delivered and reports to be written. */}}
{{- define "ld.grace" -}}
{{- add .Values.drainSeconds 15 -}}
{{- end -}}

{{/* podman 4.3 hands Secrets out undecoded: a token works so, a certificate does not; there the master makes its own. */}}
{{- define "ld.tlsMode" -}}
{{- if and (eq .Values.mode "run") (eq .Values.run.as "pod") (eq .Values.tls.mode "secret") (not .Values.tls.existingSecret) -}}auto{{- else -}}{{ .Values.tls.mode }}{{- end -}}
{{- end -}}

{{/* What the schema cannot say. */}}
{{- define "ld.validate" -}}
{{- if and .Values.document .Values.documentFrom.configMap -}}
{{- fail "give either `document` or `documentFrom.configMap`, not both: which one should run?" -}}
{{- end -}}
{{- if and .Values.documentFrom.path (or .Values.document .Values.documentFrom.configMap) -}}
{{- fail "`documentFrom.path` names a file that a volume brings: leave `document` and `documentFrom.configMap` empty" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (eq .Values.mode "run") -}}
{{- fail "`autoscaling` needs `mode: serve`: a run waits for a fixed number of workers, `workers.replicas`" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (lt (int .Values.autoscaling.maxReplicas) (int .Values.workers.replicas)) -}}
{{- fail (printf "`autoscaling.maxReplicas` (%d) is below `workers.replicas` (%d), with which it starts" (int .Values.autoscaling.maxReplicas) (int .Values.workers.replicas)) -}}
{{- end -}}
{{- if and (ne .Values.tls.mode "secret") .Values.tls.existingSecret -}}
{{- fail "`tls.existingSecret` needs `tls.mode: secret`" -}}
{{- end -}}
{{- if and (eq .Values.run.as "pod") (eq .Values.mode "serve") -}}
{{- fail "`run.as: pod` belongs to `mode: run`" -}}
{{- end -}}
{{- end -}}

{{- define "ld.podSecurity" -}}
automountServiceAccountToken: false
{{- with .root.Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
  {{- with .part.sysctls }}
  sysctls:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "ld.container" -}}
image: {{ include "ld.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* requests = limits: a generator that is squeezed measures itself. */}}
{{- define "ld.resources" -}}
resources:
  requests:
    cpu: {{ .cpu | quote }}
    memory: {{ .memory | quote }}
    {{- with .ephemeralStorage }}
    ephemeral-storage: {{ . | quote }}
    {{- end }}
  limits:
    cpu: {{ .cpu | quote }}
    memory: {{ .memory | quote }}
    {{- with .ephemeralStorage }}
    ephemeral-storage: {{ . | quote }}
    {{- end }}
{{- end -}}

{{/* As a file, not as a variable: nobody sees it in `kubectl describe` or /proc. */}}
{{- define "ld.tokenMount" -}}
- name: token
  mountPath: /etc/loaddensity/token
  readOnly: true
{{- end -}}

{{- define "ld.tokenVolume" -}}
- name: token
  secret:
    secretName: {{ include "ld.tokenSecret" . }}
    items:
      - key: token
        path: token
    defaultMode: 0440
    # said aloud: podman 4.3 breaks without
    optional: false
{{- end -}}

{{/* The pod of the master, in either mode. */}}
{{- define "ld.masterPod" -}}
{{- $part := .Values.master -}}
{{- $run := eq .Values.mode "run" -}}
{{ include "ld.podSecurity" (dict "root" . "part" $part) }}
terminationGracePeriodSeconds: {{ include "ld.grace" . }}
{{- if $run }}
restartPolicy: Never
{{- end }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "ld.selector" (dict "root" . "component" "worker") | nindent 14 }}
containers:
  - name: master
    {{- include "ld.container" . | nindent 4 }}
    command:
      - ld-master
    args:
      {{- if $run }}
      - run
      - {{ default "/documents/document.json" .Values.documentFrom.path | quote }}
      - --summary=/data/r{{ .Release.Revision }}-summary.json
      - --html=/data/r{{ .Release.Revision }}-report.html
      - --expected-workers={{ int .Values.workers.replicas }}
      - --wait={{ .Values.master.wait }}
      # without a volume there is nothing that a successor could take up
      - --on-terminate={{ .Values.results.enabled | ternary .Values.run.onTerminate "end" }}
      {{- end }}
      - --bind=0.0.0.0:5557
      - --web=0.0.0.0:8089
      - --data-dir=/data
      - --token-file=/etc/loaddensity/token/token
      {{- if eq (include "ld.tlsMode" .) "secret" }}
      - --tls=/etc/loaddensity/tls/tls.crt,/etc/loaddensity/tls/tls.key
      {{- else if eq (include "ld.tlsMode" .) "off" }}
      - --tls=off
      {{- end }}
      {{- range .Values.allowTargets }}
      - --allow-target={{ . }}
      {{- end }}
      {{- range $part.extraArgs }}
      - {{ . | quote }}
      {{- end }}
    # relative names in documents: `files` lie here, reports are written here
    workingDir: /data
    env:
      - name: LD_VIEWER_TOKEN
        valueFrom:
          secretKeyRef:
            name: {{ include "ld.tokenSecret" . }}
            key: viewer-token
            optional: true
      {{- if include "ld.hasTarget" . }}
      - name: LD_TARGET
        value: {{ include "ld.targetUrl" . | quote }}
      {{- end }}
      {{- with $part.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with $part.envFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    ports:
      - name: {{ include "ld.clusterPort" . }}
        containerPort: 5557
      - name: http-web
        containerPort: 8089
    {{- include "ld.resources" $part.resources | nindent 4 }}
    {{- if .Values.probes.enabled }}
    startupProbe:
      exec:
        command: [ld-master, healthcheck, --web=127.0.0.1:8089]
      periodSeconds: 2
      timeoutSeconds: 5
      failureThreshold: 60
    livenessProbe:
      exec:
        command: [ld-master, healthcheck, --web=127.0.0.1:8089]
      periodSeconds: 10
      timeoutSeconds: 10
      failureThreshold: 6
    readinessProbe:
      exec:
        command: [ld-master, healthcheck, --web=127.0.0.1:8089, --path=/readyz]
      periodSeconds: 5
      timeoutSeconds: 5
    {{- end }}
    volumeMounts:
      {{- include "ld.tokenMount" . | nindent 6 }}
      - name: data
        mountPath: /data
      {{- if include "ld.mountsDocument" . }}
      - name: document
        mountPath: /documents
        readOnly: true
      {{- end }}
      {{- range $name, $_ := .Values.files }}
      - name: files
        mountPath: /data/{{ $name }}
        subPath: {{ $name }}
        readOnly: true
      {{- end }}
      {{- if eq (include "ld.tlsMode" .) "secret" }}
      - name: tls
        mountPath: /etc/loaddensity/tls
        readOnly: true
      {{- end }}
      {{- with $part.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  {{- include "ld.tokenVolume" . | nindent 2 }}
  - name: data
    {{- if .Values.results.enabled }}
    persistentVolumeClaim:
      claimName: {{ include "ld.claim" . }}
    {{- else }}
    emptyDir: {}
    {{- end }}
  {{- if include "ld.mountsDocument" . }}
  - name: document
    configMap:
      {{- with .Values.documentFrom.configMap }}
      name: {{ .name }}
      items:
        - key: {{ default "document.json" .key }}
          path: document.json
      {{- else }}
      name: {{ include "ld.fullname" . }}-document
      {{- end }}
      optional: false
  {{- end }}
  {{- if .Values.files }}
  - name: files
    configMap:
      name: {{ include "ld.fullname" . }}-files
      optional: false
  {{- end }}
  {{- if eq (include "ld.tlsMode" .) "secret" }}
  - name: tls
    secret:
      secretName: {{ include "ld.tlsSecret" . }}
      defaultMode: 0440
      # said aloud: podman 4.3 breaks without
      optional: false
  {{- end }}
  {{- with $part.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "ld.mountsDocument" -}}
{{- if and (eq .Values.mode "run") (not .Values.documentFrom.path) -}}true{{- end -}}
{{- end -}}

{{/* A mesh tells protocols by the names of ports: TLS of our own is passed through, open gRPC is understood. */}}
{{- define "ld.clusterPort" -}}
{{- if eq (include "ld.tlsMode" .) "off" -}}grpc-cluster{{- else -}}tls-cluster{{- end -}}
{{- end -}}

{{/* The pod of a worker, in either mode. */}}
{{- define "ld.workerPod" -}}
{{- $part := .Values.workers -}}
{{ include "ld.podSecurity" (dict "root" . "part" $part) }}
terminationGracePeriodSeconds: {{ include "ld.grace" . }}
{{- if eq .Values.mode "run" }}
# one that was killed for memory is started again, and gets a share of the run
restartPolicy: OnFailure
{{- end }}
{{- if ne $part.antiAffinity "off" }}
affinity:
  podAntiAffinity:
    {{- if eq $part.antiAffinity "hard" }}
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "ld.selector" (dict "root" . "component" "worker") | nindent 12 }}
    {{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "ld.selector" (dict "root" . "component" "worker") | nindent 14 }}
    {{- end }}
{{- end }}
{{- if $part.topologySpread }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "ld.selector" (dict "root" . "component" "worker") | nindent 8 }}
{{- end }}
containers:
  - name: worker
    {{- include "ld.container" . | nindent 4 }}
    command:
      - ld-worker
    args:
      - --master={{ include "ld.masterAddress" . }}:5557
      - --master-timeout={{ $part.masterTimeout }}
      - --web=127.0.0.1:8089
      - --token-file=/etc/loaddensity/token/token
      {{- if eq .Values.mode "serve" }}
      - --stay
      {{- end }}
      {{- if eq (include "ld.tlsMode" .) "off" }}
      - --tls=off
      {{- end }}
      {{- if $part.spool }}
      - --spool=/spool
      {{- end }}
      {{- range .Values.allowTargets }}
      - --allow-target={{ . }}
      {{- end }}
      {{- range $part.extraArgs }}
      - {{ . | quote }}
      {{- end }}
    env:
      {{- if eq (include "ld.tlsMode" .) "secret" }}
      - name: LD_WORKER_CA_FINGERPRINT
        valueFrom:
          secretKeyRef:
            name: {{ include "ld.tlsSecret" . }}
            key: fingerprint
            optional: true
      {{- end }}
      {{- with $part.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- include "ld.resources" $part.resources | nindent 4 }}
    {{- if .Values.probes.enabled }}
    # lives, however busy it is: one that is at its limit must not be shot for it
    livenessProbe:
      exec:
        command: [ld-worker, healthcheck, --web=127.0.0.1:8089]
      initialDelaySeconds: 5
      periodSeconds: 10
      timeoutSeconds: 10
      failureThreshold: 6
    # ready: it has joined the master
    readinessProbe:
      exec:
        command: [ld-worker, healthcheck, --web=127.0.0.1:8089, --path=/readyz]
      periodSeconds: 5
      timeoutSeconds: 5
      failureThreshold: 3
    {{- end }}
    volumeMounts:
      {{- include "ld.tokenMount" . | nindent 6 }}
      {{- if $part.spool }}
      - name: spool
        mountPath: /spool
      {{- end }}
volumes:
  {{- include "ld.tokenVolume" . | nindent 2 }}
  {{- if $part.spool }}
  - name: spool
    emptyDir:
      sizeLimit: {{ $part.spool | quote }}
  {{- end }}
{{- end -}}

{{/* The pod of the target. */}}
{{- define "ld.targetPod" -}}
{{ include "ld.podSecurity" (dict "root" . "part" .Values.target) }}
terminationGracePeriodSeconds: 10
containers:
  - name: target
    {{- include "ld.container" . | nindent 4 }}
    command:
      - ld-master
    args:
      - target
      - --listen=0.0.0.0:8080
      - --latency={{ .Values.target.latency }}
    ports:
      - name: http-target
        containerPort: 8080
    {{- include "ld.resources" .Values.target.resources | nindent 4 }}
    {{- if .Values.probes.enabled }}
    # the one path that is not counted as an arrival
    readinessProbe:
      exec:
        command: [ld-master, healthcheck, "127.0.0.1:8080", --path=/__counts]
      periodSeconds: 2
      timeoutSeconds: 5
    {{- end }}
{{- end -}}
